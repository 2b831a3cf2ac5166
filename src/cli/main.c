#include <stdio.h>

#include "facet.h"

int main(void)
{
    printf("facet %s\n", facet_version());
    return 0;
}
