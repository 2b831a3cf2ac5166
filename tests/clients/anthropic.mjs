// The official Anthropic client against a server: node anthropic.mjs. The package lies in node_modules beside this file.
import assert from 'node:assert/strict';
import test from 'node:test';
import Anthropic from '@anthropic-ai/sdk';

const baseURL = process.env.FACET_URL;
const client = new Anthropic({baseURL, apiKey: 'sesame', maxRetries: 0});
const model = 'small', max_tokens = 64;
const question = [{role: 'user', content: 'What is 82 - 61?'}];
const weather = [{role: 'user', content: 'What is the weather in Rome?'}];
const tools = [{name: 'get_weather', description: 'Get the current weather for a city.',
  input_schema: {type: 'object', properties: {city: {type: 'string', description: 'City name'}}, required: ['city']}}];
const report = '{"temperature": 3, "condition": "foggy"}';

test('plain', async () => {
  const m = await client.messages.create({model, max_tokens, messages: question});
  assert.deepEqual(m.content, [{type: 'text', text: '82 - 61 = 21.'}]);
  assert.equal(m.stop_reason, 'end_turn');
  assert.ok(m.usage.output_tokens > 5);
});

test('stream', async () => {
  const stream = client.messages.stream({model, max_tokens, messages: question});
  let text = '';
  stream.on('text', piece => (text += piece));
  const m = await stream.finalMessage();
  assert.equal(text, '82 - 61 = 21.');
  assert.equal(m.content[0].text, text);
  assert.equal(m.stop_reason, 'end_turn');
});

test('thinking', async () => {
  const settings = {model, max_tokens: 1000, messages: question, thinking: {type: 'enabled', budget_tokens: 1024}};
  const m = await client.messages.create({...settings, max_tokens: 900});
  assert.equal(m.content[0].thinking, 'I compute the result: 82 - 61 = 21.');
  assert.equal(m.content[1].text, '82 - 61 = 21.');
  const s = await client.messages.stream({...settings, max_tokens: 900}).finalMessage();
  assert.deepEqual(s.content.map(b => b.type), ['thinking', 'text']);
  assert.equal(s.content[0].thinking, m.content[0].thinking);
});

test('tools, there and back', async () => {
  for (const ask of [s => client.messages.create(s), s => client.messages.stream(s).finalMessage()]) {
    const m = await ask({model, max_tokens, messages: weather, tools});
    assert.equal(m.stop_reason, 'tool_use');
    const use = m.content.find(b => b.type === 'tool_use');
    assert.equal(use.name, 'get_weather');
    assert.deepEqual(use.input, {city: 'Rome'});
    const answer = await ask({model, max_tokens, tools, messages: [...weather, {role: 'assistant', content: m.content},
      {role: 'user', content: [{type: 'tool_result', tool_use_id: use.id, content: report}]}]});
    assert.equal(answer.content[0].text, 'The weather in Rome is foggy with 3 degrees.');
  }
});

test('stop sequences, a beginning', async () => {
  const m = await client.messages.create({model, max_tokens, messages: question, stop_sequences: [' =']});
  assert.equal(m.stop_reason, 'stop_sequence');
  assert.equal(m.stop_sequence, ' =');
  assert.equal(m.content[0].text, '82 - 61');
  const b = await client.messages.create({model, max_tokens, messages: [...question, {role: 'assistant', content: '82 - 61'}]});
  assert.equal(b.content[0].text, ' = 21.');
  const cut = await client.messages.create({model, max_tokens: 2, messages: question});
  assert.equal(cut.stop_reason, 'max_tokens');
});

test('JSON schema', async () => {
  const schema = {type: 'object', additionalProperties: false, required: ['answer'], properties: {answer: {type: 'integer', minimum: 0, maximum: 99}}};
  const m = await client.messages.create({model, max_tokens, messages: question, output_config: {format: {type: 'json_schema', schema}}});
  const {answer, ...rest} = JSON.parse(m.content[0].text);
  assert.ok(Number.isInteger(answer) && answer >= 0 && answer <= 99, m.content[0].text);
  assert.deepEqual(rest, {});
  assert.equal(m.stop_reason, 'end_turn');
});

test('counting', async () => {
  const {input_tokens} = await client.messages.countTokens({model, messages: question});
  const m = await client.messages.create({model, max_tokens, messages: question});
  assert.equal(m.usage.input_tokens + m.usage.cache_read_input_tokens, input_tokens);
});

test('abort in the middle of a stream', async () => {
  const stream = client.messages.stream({model, max_tokens: 900, ignore_eos: true, messages: [{role: 'user', content: 'Tell me a story.'}]});
  stream.on('text', () => stream.abort());
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
});

test('errors', async () => {
  const refused = (promise, kind, status, pattern) => assert.rejects(promise, e => {
    assert.ok(e instanceof kind, `${e.constructor.name}, wanted ${kind.name}`);
    assert.equal(e.status, status);
    assert.match(e.message, pattern);
    return true;
  });
  const create = settings => client.messages.create({model, max_tokens, messages: question, ...settings});
  await refused(create({max_tokens: 20000}), Anthropic.BadRequestError, 400, /maximum context length is 1024 tokens/);
  await refused(create({messages: []}), Anthropic.BadRequestError, 400, /messages/);
  const stranger = new Anthropic({baseURL, apiKey: 'wrong', maxRetries: 0});
  await refused(stranger.messages.create({model, max_tokens, messages: question}), Anthropic.AuthenticationError, 401, /API key/);
});
