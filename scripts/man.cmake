# cmake -DFACET=PROGRAM -DVERSION=V -DIN=PAGE.in -DOUT=PAGE -P man.cmake: fills in what the program's --help says.

# Lines "  NAME TEXT" or "  -x, --long ARG TEXT" as .TP entries.
function(entries text pattern out)
  set(all "")
  string(REPLACE ";" "," text "${text}")
  string(REPLACE "\n" ";" lines "${text}")
  foreach(line ${lines})
    if(line MATCHES "${pattern}")
      set(name "${CMAKE_MATCH_1}")
      set(help "${CMAKE_MATCH_${CMAKE_MATCH_COUNT}}")
      string(STRIP "${name}" name)
      string(REPLACE "-" "\\-" name "${name}")
      string(REPLACE "\\" "\\\\" help "${help}")
      if(help MATCHES "^[.']") # roff would take the line for a request
        string(PREPEND help "\\&")
      endif()
      string(APPEND all ".TP\n.B ${name}\n${help}\n")
    endif()
  endforeach()
  set(${out} "${all}" PARENT_SCOPE)
endfunction()

execute_process(COMMAND ${FACET} --help OUTPUT_VARIABLE commands COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${FACET} serve --help OUTPUT_VARIABLE options COMMAND_ERROR_IS_FATAL ANY)
entries("${commands}" "^  ([a-z][a-z-]*) +(.*)$" COMMANDS)
entries("${options}" "^ +(-[^ ,]+(, --[^ ]+)?( [A-Z0][^ ]*)?) +([^ ].*)$" OPTIONS)
configure_file(${IN} ${OUT} @ONLY)
