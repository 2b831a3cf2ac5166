// The official OpenAI client against a server: node openai.mjs URL. The package lies in node_modules beside this file.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';

const baseURL = process.env.FACET_URL + '/v1';
const client = new OpenAI({baseURL, apiKey: 'sesame', maxRetries: 0});
const model = 'small';
const question = [{role: 'user', content: 'What is 82 - 61?'}];
const weather = [{role: 'user', content: 'What is the weather in Rome?'}];
const tools = [{type: 'function', function: {name: 'get_weather', description: 'Get the current weather for a city.',
  parameters: {type: 'object', properties: {city: {type: 'string', description: 'City name'}}, required: ['city']}}}];
const report = '{"temperature": 3, "condition": "foggy"}';

test('plain', async () => {
  const r = await client.chat.completions.create({model, messages: question});
  assert.equal(r.choices[0].message.content, '82 - 61 = 21.');
  assert.equal(r.choices[0].finish_reason, 'stop');
  assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens);
});

test('stream with usage', async () => {
  const stream = await client.chat.completions.create({model, messages: question, stream: true, stream_options: {include_usage: true}});
  let text = '', usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, '82 - 61 = 21.');
  assert.ok(usage.completion_tokens > 5);
});

test('stream helper', async () => {
  const runner = client.chat.completions.stream({model, messages: question});
  assert.equal(await runner.finalContent(), '82 - 61 = 21.');
});

test('tools, there and back', async () => {
  const first = await client.chat.completions.create({model, messages: weather, tools});
  const [call] = first.choices[0].message.tool_calls;
  assert.equal(first.choices[0].finish_reason, 'tool_calls');
  assert.equal(call.function.name, 'get_weather');
  assert.deepEqual(JSON.parse(call.function.arguments), {city: 'Rome'});
  const second = await client.chat.completions.create({model, tools,
    messages: [...weather, first.choices[0].message, {role: 'tool', tool_call_id: call.id, content: report}]});
  assert.equal(second.choices[0].message.content, 'The weather in Rome is foggy with 3 degrees.');
});

test('tool runner', async () => {
  const seen = [];
  const runner = client.chat.completions.runTools({model, messages: weather, tools: [{type: 'function', function: {
    ...tools[0].function, parse: JSON.parse, function: args => (seen.push(args), report)}}]});
  assert.equal(await runner.finalContent(), 'The weather in Rome is foggy with 3 degrees.');
  assert.deepEqual(seen, [{city: 'Rome'}]);
});

test('tools in a stream', async () => {
  const runner = client.chat.completions.stream({model, messages: weather, tools, tool_choice: 'required'});
  const {choices: [{message, finish_reason}]} = await runner.finalChatCompletion();
  assert.equal(finish_reason, 'tool_calls');
  assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), {city: 'Rome'});
});

test('reasoning', async () => {
  const r = await client.chat.completions.create({model, messages: question, reasoning_effort: 'low'});
  assert.equal(r.choices[0].message.reasoning_content, 'I compute the result: 82 - 61 = 21.');
  assert.equal(r.choices[0].message.content, '82 - 61 = 21.');
  assert.ok(r.usage.completion_tokens_details.reasoning_tokens > 10);
});

test('logprobs', async () => {
  const r = await client.chat.completions.create({model, messages: question, logprobs: true, top_logprobs: 4});
  const list = r.choices[0].logprobs.content;
  assert.equal(list.map(t => t.token).join(''), '82 - 61 = 21.');
  assert.ok(list.every(t => t.logprob <= 0 && t.top_logprobs.length === 4));
});

const schema = {type: 'object', additionalProperties: false, required: ['answer', 'unit', 'tags'], properties: {
  answer: {type: 'integer', minimum: 0, maximum: 99}, unit: {enum: ['C', 'F']},
  tags: {type: 'array', maxItems: 2, items: {type: 'string', pattern: '^[a-z]{1,4}$'}}}};

function fits(text) {
  const {answer, unit, tags, ...rest} = JSON.parse(text);
  assert.ok(Number.isInteger(answer) && answer >= 0 && answer <= 99, text);
  assert.ok(['C', 'F'].includes(unit), text);
  assert.ok(tags.length <= 2 && tags.every(t => /^[a-z]{1,4}$/.test(t)), text);
  assert.deepEqual(rest, {});
}

test('JSON schema', async () => {
  const settings = {model, messages: question, max_tokens: 128,
    response_format: {type: 'json_schema', json_schema: {name: 'reply', strict: true, schema}}};
  const r = await client.chat.completions.parse(settings);
  fits(r.choices[0].message.content);
  const final = await client.chat.completions.stream(settings).finalChatCompletion();
  assert.equal(final.choices[0].message.content, r.choices[0].message.content);
  const response = await client.responses.create({model, input: 'What is 82 - 61?', max_output_tokens: 128,
    text: {format: {type: 'json_schema', name: 'reply', strict: true, schema}}});
  fits(response.output_text);
});

test('JSON objects', async () => {
  const r = await client.chat.completions.create({model, messages: question, response_format: {type: 'json_object'}, max_tokens: 256,
    temperature: 0.8, seed: 3});
  if (r.choices[0].finish_reason === 'stop') assert.equal(typeof JSON.parse(r.choices[0].message.content), 'object');
  else assert.match(r.choices[0].message.content, /^\s*\{/);
});

test('a schema that cannot be guaranteed', async () => {
  const spoiled = {...schema, properties: {...schema.properties, answer: {not: {type: 'string'}}}};
  await assert.rejects(client.chat.completions.create({model, messages: question,
    response_format: {type: 'json_schema', json_schema: {name: 'reply', schema: spoiled}}}), e => {
    assert.ok(e instanceof OpenAI.BadRequestError);
    assert.match(e.message, /#\/properties\/answer/);
    return true;
  });
});

test('choices, stop, seed', async () => {
  const settings = {model, messages: [{role: 'user', content: 'Tell me a story.'}], n: 2, seed: 5, temperature: 1.5, max_tokens: 12};
  const a = await client.chat.completions.create(settings), b = await client.chat.completions.create(settings);
  assert.deepEqual(a.choices.map(c => c.message.content), b.choices.map(c => c.message.content));
  assert.equal(a.choices.length, 2);
  const stopped = await client.chat.completions.create({model, messages: question, stop: [' =']});
  assert.equal(stopped.choices[0].message.content, '82 - 61');
});

test('completions', async () => {
  const r = await client.completions.create({model, prompt: 'Once upon a time', max_tokens: 8, logprobs: 2});
  assert.equal(r.usage.completion_tokens, 8);
  assert.equal(r.choices[0].logprobs.tokens.join(''), r.choices[0].text);
});

test('responses', async () => {
  const r = await client.responses.create({model, input: 'What is 82 - 61?'});
  assert.equal(r.output_text, '82 - 61 = 21.');
  assert.equal(r.status, 'completed');
});

test('responses as a stream', async () => {
  const runner = client.responses.stream({model, input: 'What is 82 - 61?', reasoning: {effort: 'low'}});
  let text = '';
  for await (const event of runner) if (event.type === 'response.output_text.delta') text += event.delta;
  const final = await runner.finalResponse();
  assert.equal(text, '82 - 61 = 21.');
  assert.equal(final.output_text, text);
  assert.equal(final.output[0].type, 'reasoning');
});

test('responses with tools', async () => {
  const flat = [{type: 'function', strict: false, ...tools[0].function}];
  const first = await client.responses.create({model, input: weather, tools: flat});
  const call = first.output.find(item => item.type === 'function_call');
  assert.deepEqual(JSON.parse(call.arguments), {city: 'Rome'});
  const second = await client.responses.create({model, tools: flat,
    input: [...weather, call, {type: 'function_call_output', call_id: call.call_id, output: report}]});
  assert.equal(second.output_text, 'The weather in Rome is foggy with 3 degrees.');
});

test('abort in the middle of a stream', async () => {
  const stream = await client.chat.completions.create({model, stream: true, max_tokens: 900, ignore_eos: true,
    messages: [{role: 'user', content: 'Tell me a story.'}]});
  let n = 0;
  for await (const _ of stream) if (++n === 5) stream.controller.abort();
  assert.ok(n < 900);
  const headers = {Authorization: 'Bearer sesame'};
  for (let i = 0; ; i++) {
    const slots = await (await fetch(process.env.FACET_URL + '/slots', {headers})).json();
    if (slots.every(s => s.state === 'idle')) break;
    assert.ok(i < 100, 'the text goes on without its client');
    await new Promise(resolve => setTimeout(resolve, 50));
  }
});

test('models', async () => {
  const list = await client.models.list();
  assert.deepEqual(list.data.map(m => m.id), ['small']);
});

test('errors', async () => {
  const refused = (promise, kind, status, pattern) => assert.rejects(promise, e => {
    assert.ok(e instanceof kind, `${e.constructor.name}, wanted ${kind.name}`);
    assert.equal(e.status, status);
    assert.match(e.message, pattern);
    return true;
  });
  const create = settings => client.chat.completions.create({model, messages: question, ...settings});
  await refused(create({temperature: -1}), OpenAI.BadRequestError, 400, /temperature: -1: want a number from 0 to 100/);
  await refused(create({max_tokens: 100000}), OpenAI.BadRequestError, 400, /maximum context length is 1024 tokens/);
  await refused(create({messages: []}), OpenAI.BadRequestError, 400, /messages/);
  const stranger = new OpenAI({baseURL, apiKey: 'wrong', maxRetries: 0});
  await refused(stranger.models.list(), OpenAI.AuthenticationError, 401, /API key/);
  await refused(client.embeddings.create({model, input: 'x'}), OpenAI.NotFoundError, 404, /no such address/);
});
