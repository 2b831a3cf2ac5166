/* cmd_convert.h: the command `facet convert`. */
#ifndef FACET_CLI_CMD_CONVERT_H
#define FACET_CLI_CMD_CONVERT_H

/* argv[0] is the command's name. Returns the exit status. */
int cmd_convert(int argc, char **argv);

#endif
