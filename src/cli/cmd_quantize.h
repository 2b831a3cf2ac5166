/* cmd_quantize.h: the command `facet quantize`. */
#ifndef FACET_CLI_CMD_QUANTIZE_H
#define FACET_CLI_CMD_QUANTIZE_H

/* argv[0] is the command's name. Returns the exit status. */
int cmd_quantize(int argc, char **argv);

#endif
