/* The Jinja template that Facet puts into files it writes. It gives what chat_render gives for the July generation:
 * macros for values, declarations and texts, then one pass over the messages. The name prev_non_tool_role is what
 * readers of templates, chat_detect among them, tell that generation by. */
#include "text/chat.h"

#pragma GCC diagnostic ignored "-Woverlength-strings" /* gcc and clang take strings of any length */

#define MACROS                                                                                                         \
    "{#- Gemma 4 chats as of July 2026, written by Facet. -#}\n"                                                       \
    "{%- macro quoted(s) -%}\n"                                                                                        \
    "{{- '<|\"|>' + s | replace('<|\"|>', '\"') + '<|\"|>' -}}\n"                                                      \
    "{%- endmacro -%}\n"                                                                                               \
    "{%- macro value(v, quoted_keys) -%}\n"                                                                            \
    "{%- if v is string -%}{{- quoted(v) -}}\n"                                                                        \
    "{%- elif v is boolean -%}{{- 'true' if v else 'false' -}}\n"                                                      \
    "{%- elif v is none -%}{{- 'null' -}}\n"                                                                           \
    "{%- elif v is mapping -%}\n"                                                                                      \
    "{{- '{' -}}\n"                                                                                                    \
    "{%- for key, member in v | dictsort -%}\n"                                                                        \
    "{{- quoted(key) if quoted_keys else key | replace('<|\"|>', '\"') -}}{{- ':' -}}\n"                               \
    "{{- value(member, quoted_keys) -}}{{- '' if loop.last else ',' -}}\n"                                             \
    "{%- endfor -%}\n"                                                                                                 \
    "{{- '}' -}}\n"                                                                                                    \
    "{%- elif v is iterable -%}\n"                                                                                     \
    "{{- '[' -}}\n"                                                                                                    \
    "{%- for member in v -%}{{- value(member, quoted_keys) -}}{{- '' if loop.last else ',' -}}{%- endfor -%}\n"        \
    "{{- ']' -}}\n"                                                                                                    \
    "{%- else -%}{{- v -}}\n"                                                                                          \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endmacro -%}\n"                                                                                               \
    "{%- macro properties(all, only_schemas) -%}\n"                                                                    \
    "{%- set at = namespace(comma='', kind='', sub='') -%}\n"                                                          \
    "{%- for name, schema in all | dictsort -%}\n"                                                                     \
    "{%- if name not in ['description', 'type', 'properties', 'required', 'nullable'] and (schema is mapping or not "  \
    "only_schemas) -%}\n"                                                                                              \
    "{{- at.comma + name | replace('<|\"|>', '\"') + ':{' -}}\n"                                                       \
    "{%- set at.comma = ',' -%}\n"                                                                                     \
    "{%- set at.kind = '' -%}\n"                                                                                       \
    "{%- if schema['type'] is string -%}{%- set at.kind = schema['type'] | upper -%}\n"                                \
    "{%- elif schema['type'] -%}\n"                                                                                    \
    "{%- for kind in schema['type'] | reverse -%}\n"                                                                   \
    "{%- if kind is string and kind != 'null' -%}{%- set at.kind = kind | upper -%}{%- endif -%}\n"                    \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- endif -%}\n"                                                                                                  \
    "{%- if schema['description'] -%}{{- 'description:' + quoted(schema['description']) + ',' -}}{%- endif -%}\n"      \
    "{%- if at.kind == 'STRING' and 'enum' in schema -%}{{- 'enum:' + value(schema['enum'], false) + ',' -}}{%- "      \
    "endif -%}\n"                                                                                                      \
    "{%- if at.kind == 'ARRAY' and schema['items'] is mapping and schema['items'] -%}\n"                               \
    "{{- 'items:{' -}}\n"                                                                                              \
    "{%- set at.sub = '' -%}\n"                                                                                        \
    "{%- for key, member in schema['items'] | dictsort -%}\n"                                                          \
    "{%- if member is not none -%}\n"                                                                                  \
    "{{- at.sub -}}\n"                                                                                                 \
    "{%- set at.sub = ',' -%}\n"                                                                                       \
    "{%- if key == 'properties' and member is mapping -%}{{- 'properties:{' + properties(member, false) + '}' -}}\n"   \
    "{%- elif key == 'type' and member is string -%}{{- 'type:' + quoted(member | upper) -}}\n"                        \
    "{%- else -%}{{- key | replace('<|\"|>', '\"') + ':' + value(member, true) -}}\n"                                  \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endfor -%}\n"                                                                                                 \
    "{{- '},' -}}\n"                                                                                                   \
    "{%- endif -%}\n"                                                                                                  \
    "{%- if schema['nullable'] -%}{{- 'nullable:true,' -}}{%- endif -%}\n"                                             \
    "{%- if at.kind == 'OBJECT' -%}\n"                                                                                 \
    "{{- 'properties:{' -}}\n"                                                                                         \
    "{%- if schema['properties'] is mapping -%}{{- properties(schema['properties'], false) -}}\n"                      \
    "{%- else -%}{{- properties(schema, true) -}}\n"                                                                   \
    "{%- endif -%}\n"                                                                                                  \
    "{{- '},' -}}\n"                                                                                                   \
    "{%- if schema['required'] -%}{{- 'required:' + value(schema['required'], false) + ',' -}}{%- endif -%}\n"         \
    "{%- endif -%}\n"                                                                                                  \
    "{{- 'type:' + quoted(at.kind) + '}' -}}\n"                                                                        \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- endmacro -%}\n"                                                                                               \
    "{%- macro declaration(function) -%}\n"                                                                            \
    "{%- set parameters = function['parameters'] -%}\n"                                                                \
    "{{- '<|tool>declaration:' + function['name'] + '{description:' + quoted(function['description'] or '') -}}\n"     \
    "{%- if parameters -%}\n"                                                                                          \
    "{{- ',parameters:{' -}}\n"                                                                                        \
    "{%- if parameters['properties'] -%}{{- 'properties:{' + properties(parameters['properties'], false) + '},' "      \
    "-}}{%- endif -%}\n"                                                                                               \
    "{%- if parameters['required'] -%}{{- 'required:' + value(parameters['required'], false) + ',' -}}{%- endif -%}\n" \
    "{{- 'type:' + quoted((parameters['type'] or 'object') | upper) + '}' -}}\n"                                       \
    "{%- endif -%}\n"                                                                                                  \
    "{%- if function['response'] -%}\n"                                                                                \
    "{{- ',response:{' -}}\n"                                                                                          \
    "{%- if function['response']['description'] -%}{{- 'description:' + quoted(function['response']['description']) "  \
    "+ ',' -}}{%- endif -%}\n"                                                                                         \
    "{{- 'type:' + quoted('OBJECT') + '}' -}}\n"                                                                       \
    "{%- endif -%}\n"                                                                                                  \
    "{{- '}<tool|>' -}}\n"                                                                                             \
    "{%- endmacro -%}\n"                                                                                               \
    "{%- macro plain(text, is_model) -%}\n"                                                                            \
    "{%- set kept = namespace(text=text) -%}\n"                                                                        \
    "{%- if is_model -%}\n"                                                                                            \
    "{%- set kept.text = '' -%}\n"                                                                                     \
    "{%- for piece in text.split('<channel|>') -%}{%- set kept.text = kept.text + piece.split('<|channel>')[0] "       \
    "-%}{%- endfor -%}\n"                                                                                              \
    "{%- endif -%}\n"                                                                                                  \
    "{{- kept.text | trim -}}\n"                                                                                       \
    "{%- endmacro -%}\n"                                                                                               \
    "{%- macro content(message, is_model, after) -%}\n"                                                                \
    "{%- if message['content'] is string -%}{{- plain(message['content'], is_model) -}}\n"                             \
    "{%- elif message['content'] -%}\n"                                                                                \
    "{%- for part in message['content'] -%}\n"                                                                         \
    "{%- if part['type'] == 'text' -%}{{- plain(part['text'], is_model) -}}\n"                                         \
    "{%- elif part['type'] in ['image', 'audio', 'video'] -%}{{- '<|' + part['type'] + '|>' -}}\n"                     \
    "{%- endif -%}\n"                                                                                                  \
    "{{- after -}}\n"                                                                                                  \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endmacro -%}\n"                                                                                               \
    "{%- macro response(name, object) -%}\n"                                                                           \
    "{{- '<|tool_response>response:' + name -}}\n"                                                                     \
    "{{- value(object, false) if object is mapping else '{value:' + value(object, false) + '}' -}}\n"                  \
    "{{- '<tool_response|>' -}}\n"                                                                                     \
    "{%- endmacro -%}\n"

#define MESSAGES                                                                                                       \
    "{%- set state = namespace(prev_non_tool_role='', last_user=-1, ending='turn') -%}\n"                              \
    "{%- set has_system = messages[0]['role'] in ['system', 'developer'] -%}\n"                                        \
    "{%- for message in messages -%}\n"                                                                                \
    "{%- if message['role'] == 'user' -%}{%- set state.last_user = loop.index0 -%}{%- endif -%}\n"                     \
    "{%- endfor -%}\n"                                                                                                 \
    "{{- bos_token -}}\n"                                                                                              \
    "{%- if has_system or enable_thinking or tools -%}\n"                                                              \
    "{{- '<|turn>system\\n' -}}\n"                                                                                     \
    "{%- if enable_thinking -%}{{- '<|think|>\\n' -}}{%- endif -%}\n"                                                  \
    "{%- if has_system -%}{{- content(messages[0], false, ' ') -}}{%- endif -%}\n"                                     \
    "{%- if tools -%}{%- for tool in tools -%}{{- declaration(tool['function']) -}}{%- endfor -%}{%- endif -%}\n"      \
    "{{- '<turn|>\\n' -}}\n"                                                                                           \
    "{%- endif -%}\n"                                                                                                  \
    "{%- for message in messages -%}\n"                                                                                \
    "{%- if message['role'] != 'tool' and not (loop.first and has_system) -%}\n"                                       \
    "{%- set is_model = message['role'] == 'assistant' -%}\n"                                                          \
    "{%- set at = namespace(has_responses=false, name='', text='', next_role='') -%}\n"                                \
    "{%- set later = messages[loop.index0 + 1:] -%}\n"                                                                 \
    "{%- if not (is_model and state.prev_non_tool_role == 'assistant') -%}\n"                                          \
    "{{- '<|turn>' + ('model' if is_model else message['role']) + '\\n' -}}\n"                                         \
    "{%- endif -%}\n"                                                                                                  \
    "{%- if is_model -%}\n"                                                                                            \
    "{%- set thought = message['reasoning'] or message['reasoning_content'] -%}\n"                                     \
    "{%- if thought and (loop.index0 > state.last_user or (preserve_thinking and message['tool_calls'])) -%}\n"        \
    "{{- '<|channel>thought\\n' + thought + '\\n<channel|>' -}}\n"                                                     \
    "{%- endif -%}\n"                                                                                                  \
    "{%- if message['tool_calls'] -%}\n"                                                                               \
    "{%- for call in message['tool_calls'] -%}\n"                                                                      \
    "{%- if call['function']['arguments'] is string -%}\n"                                                             \
    "{{- raise_exception('tool call arguments must be an object, not its text') -}}\n"                                 \
    "{%- endif -%}\n"                                                                                                  \
    "{{- '<|tool_call>call:' + call['function']['name'] + value(call['function']['arguments'] or {}, false) + "        \
    "'<tool_call|>' -}}\n"                                                                                             \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- endif -%}\n"                                                                                                  \
    "{%- if message['tool_responses'] -%}\n"                                                                           \
    "{%- set at.has_responses = true -%}\n"                                                                            \
    "{%- for answer in message['tool_responses'] -%}\n"                                                                \
    "{{- response(answer['name'] or 'unknown', answer['response']) -}}\n"                                              \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endif -%}\n"                                                                                                  \
    "{%- for other in later -%}\n"                                                                                     \
    "{%- if other['role'] != 'tool' -%}\n"                                                                             \
    "{%- if at.next_role == '' -%}{%- set at.next_role = other['role'] -%}{%- endif -%}\n"                             \
    "{%- elif at.next_role == '' and message['tool_calls'] and not message['tool_responses'] -%}\n"                    \
    "{%- set at.has_responses = true -%}\n"                                                                            \
    "{%- set at.name = other['name'] or 'unknown' -%}\n"                                                               \
    "{%- for call in message['tool_calls'] | reverse -%}\n"                                                            \
    "{%- if call['id'] and call['id'] == other['tool_call_id'] -%}{%- set at.name = call['function']['name'] -%}{%- "  \
    "endif -%}\n"                                                                                                      \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- set at.text = '' -%}\n"                                                                                       \
    "{%- if other['content'] is string -%}{%- set at.text = other['content'] -%}\n"                                    \
    "{%- elif other['content'] -%}\n"                                                                                  \
    "{%- for part in other['content'] -%}{%- set at.text = at.text + part['text'] -%}{%- endfor -%}\n"                 \
    "{%- endif -%}\n"                                                                                                  \
    "{{- response(at.name, at.text) -}}\n"                                                                             \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- set text = content(message, is_model, '') -%}\n"                                                              \
    "{{- text -}}\n"                                                                                                   \
    "{%- if is_model and message['tool_calls'] and not at.has_responses -%}\n"                                         \
    "{%- set state.ending = 'call' -%}\n"                                                                              \
    "{{- '<|tool_response>' -}}\n"                                                                                     \
    "{%- else -%}\n"                                                                                                   \
    "{%- set state.ending = 'turn' if not at.has_responses else 'answered' if text else 'response' -%}\n"              \
    "{%- if not (is_model and at.next_role == 'assistant') and not (state.ending == 'response' and at.next_role == "   \
    "'') -%}\n"                                                                                                        \
    "{{- '<turn|>\\n' -}}\n"                                                                                           \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endif -%}\n"                                                                                                  \
    "{%- set state.prev_non_tool_role = message['role'] -%}\n"                                                         \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endfor -%}\n"                                                                                                 \
    "{%- if add_generation_prompt -%}\n"                                                                               \
    "{%- if state.ending == 'turn' -%}\n"                                                                              \
    "{{- '<|turn>model\\n' -}}\n"

#define EMPTY_THOUGHT "{%- if not enable_thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}\n"

#define END                                                                                                            \
    "{%- elif state.ending == 'response' and enable_thinking -%}\n"                                                    \
    "{{- '<|channel>thought\\n' -}}\n"                                                                                 \
    "{%- endif -%}\n"                                                                                                  \
    "{%- endif -%}\n"

const char *chat_template_text(bool is_large)
{
    static const char large[] = MACROS MESSAGES EMPTY_THOUGHT END;
    static const char small[] = MACROS MESSAGES END;
    return is_large ? large : small;
}
