// The page in headless Chromium, as a person uses it: node page.mjs. Environment: FACET_URL, CHROMIUM (the program),
// SHOTS (a folder for pictures; optional).
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import test, {after, before} from 'node:test';
import {chromium} from 'playwright-core';

const url = process.env.FACET_URL + '/';
let browser, context, page, noise;

before(async () => {
  browser = await chromium.launch({executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-quic',
    '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']});
});

after(() => browser?.close());

async function open(settings = {}, options = {}) {
  await context?.close();
  context = await browser.newContext({viewport: {width: 1000, height: 700}, colorScheme: 'light', ...options});
  await context.addInitScript(s => {
    if (!localStorage.getItem('facet.settings')) localStorage.setItem('facet.settings', JSON.stringify({key: 'sesame', temperature: '0', ...s}));
  }, settings);
  page = await context.newPage();
  noise = [];
  page.on('pageerror', e => noise.push(String(e)));
  page.on('console', m => m.type() === 'error' && noise.push(m.text()));
  page.on('request', r => r.url().startsWith(url) || r.url().startsWith('blob:') || r.url().startsWith('data:') || noise.push('asks ' + r.url()));
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById('model').textContent === 'small');
}

async function say(text) {
  await page.fill('#input', text);
  await page.press('#input', 'Enter');
}

const settled = () => page.waitForSelector('#send:not([hidden])');
const answer = () => page.textContent('.message.assistant:last-child .text');
const shot = name => process.env.SHOTS && page.screenshot({path: `${process.env.SHOTS}/${name}.png`});

test('asks and answers, and shows the speed', async () => {
  await open();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'input');
  await say('What is 82 - 61?');
  await settled();
  assert.equal(await answer(), '82 - 61 = 21.');
  assert.equal(await page.textContent('.message.user .text'), 'What is 82 - 61?');
  assert.match(await page.textContent('#status'), /^11 tokens, [\d.]+ tok\/s · prompt: \d+ tokens read, \d+ kept, \d+ tok\/s · first token after [\d.]+ s$/);
  await shot('answer-light');
  await page.click('#theme');
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(25, 24, 23)');
  await shot('answer-dark');
  assert.deepEqual(noise, []);
});

test('keeps the conversation over a reload', async () => {
  await open();
  await say('What is 82 - 61?');
  await settled();
  await page.reload();
  await page.waitForSelector('.message.assistant');
  assert.equal(await answer(), '82 - 61 = 21.');
  await say('Which month comes after June?');
  await settled();
  assert.equal(await page.locator('.message').count(), 4);
  await page.keyboard.press('Alt+n');
  assert.equal(await page.locator('.message').count(), 0);
});

test('folds a thought when the answer begins', async () => {
  await open({thinking: true});
  await say('What is 82 - 61?');
  await settled();
  assert.equal(await page.textContent('.thought div'), 'I compute the result: 82 - 61 = 21.');
  assert.equal(await page.evaluate(() => document.querySelector('.thought').open), false);
  await page.click('.thought summary');
  assert.equal(await page.isVisible('.thought div'), true);
  assert.equal(await answer(), '82 - 61 = 21.');
  await shot('thought');
});

const tools = JSON.stringify([{type: 'function', function: {name: 'get_weather', description: 'Get the current weather for a city.',
  parameters: {type: 'object', properties: {city: {type: 'string', description: 'City name'}}, required: ['city']}}}]);

test('shows a tool call and takes its result', async () => {
  await open({tools});
  await say('What is the weather in Rome?');
  await settled();
  assert.equal(await page.textContent('.call h3'), 'calls get_weather');
  assert.deepEqual(JSON.parse(await page.textContent('.call code')), {city: 'Rome'});
  await page.fill('.call textarea', '{"temperature": 3, "condition": "foggy"}');
  await shot('call');
  await page.click('.call button');
  await page.waitForFunction(() => document.querySelector('.message.assistant:last-child .text')?.textContent.includes('foggy'));
  await settled();
  assert.equal(await answer(), 'The weather in Rome is foggy with 3 degrees.');
  await shot('call-result');
  assert.deepEqual(noise, []);
});

test('stops an answer and keeps what was said', async () => {
  await open();
  await page.route('**/v1/chat/completions', r => r.continue({postData: JSON.stringify({...r.request().postDataJSON(), ignore_eos: true})}));
  await say('Tell me a story.');
  await page.waitForFunction(() => (document.querySelector('.message.assistant .text')?.textContent.length ?? 0) > 20);
  await page.keyboard.press('Escape');
  await settled();
  assert.ok((await answer()).length > 20);
  await page.unroute('**/v1/chat/completions');
  await page.click('.message.assistant:last-child button:text("Again")', {force: true});
  await settled();
  assert.equal(await page.locator('.message').count(), 2);
});

test('shows drafts and how many held', async () => {
  await open({speculation: 'ngram'});
  for (let i = 0; i < 2; i++) {
    await say('Count from 3 to 9.');
    await settled();
  }
  assert.match(await page.textContent('#status'), /drafts: \d+ of \d+ accepted \(\d+ %\)/);
  assert.ok(await page.locator('#tree circle').count() > 1);
  assert.ok(await page.locator('#tree .held').count() >= 1);
  await shot('drafts');
  assert.deepEqual(noise, []);
});

test('exports what can be sent again', async () => {
  await open({system: 'Be brief.'});
  await say('What is 82 - 61?');
  await settled();
  const [json] = await Promise.all([page.waitForEvent('download'), page.click('#export-json')]);
  const messages = JSON.parse(readFileSync(await json.path(), 'utf8'));
  assert.deepEqual(messages.map(m => m.role), ['system', 'user', 'assistant']);
  assert.equal(json.suggestedFilename(), 'conversation.json');
  const r = await fetch(url + 'v1/chat/completions', {method: 'POST', headers: {Authorization: 'Bearer sesame'},
    body: JSON.stringify({messages: [...messages, {role: 'user', content: 'x'}], max_tokens: 1})});
  assert.equal(r.status, 200);
  const [text] = await Promise.all([page.waitForEvent('download'), page.click('#export-text')]);
  assert.match(readFileSync(await text.path(), 'utf8'), /^## System\n\nBe brief\.\n\n## You\n\nWhat is 82 - 61\?\n\n## Model\n\n/);
});

test('tells errors', async () => {
  await open();
  await page.fill('#set-max_tokens', '').catch(() => {});
  await page.click('#settings-button');
  await page.fill('#set-max_tokens', '100000');
  await page.dispatchEvent('#set-max_tokens', 'change');
  await page.keyboard.press('Alt+s');
  await say('x');
  await settled();
  assert.match(await page.textContent('#error'), /^400: This model's maximum context length is 1024 tokens\./);
  await shot('error');
  await page.click('#settings-button');
  await page.fill('#set-max_tokens', '');
  await page.fill('#set-tools', '[{');
  await page.dispatchEvent('#set-tools', 'change');
  await say('x');
  assert.match(await page.textContent('#error'), /^Settings, Tools: /);
  await shot('settings');
  await page.fill('#set-tools', '');
  await page.fill('#set-key', 'wrong');
  await page.dispatchEvent('#set-key', 'change');
  await page.waitForFunction(() => document.getElementById('error').textContent.includes('API key'));
});

test('text of the model never becomes markup', async () => {
  await open();
  const text = '# A\n**b** *c* `d<e` [f](https://example.org) <img src=x onerror=alert(1)>\n\n- g\n- h\n\n1. i\n\n```c\nint <b>\n```\n\n| j | k |\n|---|---|\n| l | m |\n\n> n';
  await page.route('**/v1/chat/completions', r => r.fulfill({contentType: 'text/event-stream',
    body: `data: ${JSON.stringify({choices: [{delta: {content: text}}]})}\n\ndata: [DONE]\n\n`}));
  await say('x');
  await settled();
  const last = '.message.assistant:last-child .text ';
  assert.equal(await page.locator(last + 'img').count(), 0);
  assert.equal(await page.textContent(last + 'h2'), 'A');
  assert.equal(await page.textContent(last + 'strong'), 'b');
  assert.equal(await page.textContent(last + 'p code'), 'd<e');
  assert.equal(await page.getAttribute(last + 'a', 'href'), 'https://example.org');
  assert.deepEqual(await page.locator(last + 'li').allTextContents(), ['g', 'h', 'i']);
  assert.equal(await page.textContent(last + 'pre'), 'int <b>');
  assert.deepEqual(await page.locator(last + 'td').allTextContents(), ['l', 'm']);
  assert.equal(await page.textContent(last + 'blockquote'), 'n');
  await shot('markdown');
});

test('works by keyboard alone and on a small screen', async () => {
  await open({}, {viewport: {width: 380, height: 640}});
  const seen = new Set();
  for (let i = 0; i < 14; i++) {
    await page.keyboard.press('Tab');
    seen.add(await page.evaluate(() => document.activeElement.id));
  }
  for (const id of ['new', 'export-json', 'theme', 'settings-button', 'messages', 'input', 'send']) assert.ok(seen.has(id), id);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
  await page.keyboard.press('Alt+s');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'set-system');
  await shot('small');
  await page.keyboard.press('Escape');
  assert.equal(await page.isVisible('#settings'), false);
});
