// The page: a conversation with the server that it came from. Messages are kept as the interface has them, so that
// what is exported can be sent again.
import {chat} from './stream.js';
import {element, render} from './markdown.js';
import {drawTree} from './tree.js';

const $ = id => document.getElementById(id);
const numbers = ['temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty', 'max_tokens', 'seed', 'thinking_budget'];
const fields = [...numbers, 'system', 'speculation', 'tools', 'key'];

let messages = [];  // [{role, content, reasoning_content?, tool_calls?, tool_call_id?}]
let running = null; // AbortController of the answer under way

// ---- what the browser keeps ----

function load(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem('facet.' + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem('facet.' + name, JSON.stringify(value));
  } catch { /* full or forbidden: then it is not kept */ }
}

// ---- settings ----

function loadSettings() {
  const s = load('settings', {});
  for (const f of fields) $('set-' + f).value = s[f] ?? '';
  $('set-thinking').checked = s.thinking ?? false;
  setTheme(load('theme', matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
}

function saveSettings() {
  const s = {thinking: $('set-thinking').checked};
  for (const f of fields) s[f] = $('set-' + f).value;
  keep('settings', s);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  keep('theme', theme);
}

function toggleSettings() {
  const panel = $('settings');
  panel.hidden = !panel.hidden;
  $('settings-button').setAttribute('aria-expanded', String(!panel.hidden));
  if (!panel.hidden) $('set-system').focus();
}

// The request for the conversation as it stands. Throws an Error that names the setting.
function request() {
  const body = {model: $('model').textContent || 'facet', stream: true, messages: [...messages],
    stream_options: {include_usage: true, include_drafts: true}};
  const system = $('set-system').value.trim();
  if (system) body.messages.unshift({role: 'system', content: system});
  for (const f of numbers) if ($('set-' + f).value !== '') body[f] = Number($('set-' + f).value);
  if ($('set-speculation').value) body.speculation = $('set-speculation').value;
  if ($('set-thinking').checked) body.enable_thinking = true;
  const tools = $('set-tools').value.trim();
  if (tools) {
    try {
      body.tools = JSON.parse(tools);
    } catch (e) {
      throw new Error('Settings, Tools: ' + e.message);
    }
  }
  return body;
}

// ---- showing messages ----

function small(label, title, action) {
  const b = element('button', {type: 'button', title}, label);
  b.addEventListener('click', action);
  return b;
}

function thoughtView(text, open) {
  return element('details', {class: 'thought', open}, element('summary', {}, 'Thought'), element('div', {}, text));
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

// A call; with a field for its result where there is none yet.
function callView(call, result) {
  const view = element('section', {class: 'call'}, element('h3', {}, 'calls ' + call.function.name),
    element('pre', {}, element('code', {}, pretty(call.function.arguments))));
  if (result !== undefined) {
    view.append(element('h3', {}, 'result'), element('pre', {}, element('code', {}, pretty(result))));
    return view;
  }
  const input = element('textarea', {rows: '2', 'aria-label': 'Result of ' + call.function.name, placeholder: 'Result of the tool'});
  view.append(input, small('Send result', 'Give the result to the model', () => addResult(call.id, input.value)));
  return view;
}

function messageView(m, i) {
  const view = element('article', {class: 'message ' + m.role, 'aria-label': m.role === 'user' ? 'You' : 'Model'});
  const text = element('div', {class: 'text'});
  if (m.reasoning_content) view.append(thoughtView(m.reasoning_content, false));
  if (m.role === 'user') text.textContent = m.content;
  else render(text, m.content ?? '');
  if (m.content) view.append(text);
  for (const call of m.tool_calls ?? []) view.append(callView(call, messages.find(r => r.tool_call_id === call.id)?.content));
  const tools = element('div', {class: 'tools'}, small('Copy', 'Copy the text', () => navigator.clipboard?.writeText(m.content ?? '')));
  if (m.role === 'user') tools.append(small('Edit', 'Take this message back and change it', () => edit(i)));
  if (m.role === 'assistant' && i === messages.length - 1) tools.append(small('Again', 'Another answer', again));
  view.append(tools);
  return view;
}

function showAll() {
  const views = messages.map((m, i) => (m.role === 'tool' ? null : messageView(m, i))).filter(Boolean);
  $('messages').replaceChildren(...views);
  scrollDown(true);
}

function isAtEnd() {
  const m = $('messages');
  return m.scrollHeight - m.scrollTop - m.clientHeight < 80;
}

function scrollDown(always) {
  const m = $('messages');
  if (always || isAtEnd()) m.scrollTop = m.scrollHeight;
}

function showError(text) {
  $('error').textContent = text;
  $('error').hidden = !text;
}

// ---- answers ----

// An answer under way, and its view. Text is rendered once a frame, however fast it comes.
class Answer {
  constructor() {
    this.message = {role: 'assistant', content: '', reasoning_content: ''};
    this.view = element('article', {class: 'message assistant', 'aria-label': 'Model', 'aria-busy': 'true'});
    this.text = element('div', {class: 'text cursor'});
    this.view.append(this.text);
    $('messages').append(this.view);
    this.begun = performance.now();
    this.first = 0;
    this.tokens = 0;
    this.drafted = this.accepted = 0;
    this.frame = 0;
    this.update();
  }

  take(chunk) {
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    if (delta.reasoning_content) this.message.reasoning_content += delta.reasoning_content;
    if (delta.content) this.message.content += delta.content;
    if (delta.reasoning_content || delta.content) {
      this.first ||= performance.now();
      this.tokens++;
    }
    for (const call of delta.tool_calls ?? []) {
      const {index, ...rest} = call;
      (this.message.tool_calls ??= [])[index] = rest;
    }
    if (choice?.finish_reason) this.finish = choice.finish_reason;
    if (chunk.drafts) {
      this.drafts = chunk.drafts;
      this.drafted += chunk.drafts.drafted;
      this.accepted += chunk.drafts.accepted;
    }
    if (chunk.timings) this.timings = chunk.timings;
    if (chunk.speculation) this.speculation = chunk.speculation;
    if (chunk.usage) this.usage = chunk.usage;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.update());
  }

  update() {
    const follow = isAtEnd();
    this.frame = 0;
    if (this.message.reasoning_content) {
      if (!this.thought) this.text.before(this.thought = thoughtView('', true));
      this.thought.lastElementChild.textContent = this.message.reasoning_content;
      if (this.message.content && !this.wasFolded) {
        this.thought.open = false;
        this.wasFolded = true;
      }
    }
    render(this.text, this.message.content ?? '');
    showStatus(this);
    if (this.drafts) $('drafts').hidden = !drawTree($('tree'), this.drafts);
    scrollDown(follow);
  }

  close() {
    cancelAnimationFrame(this.frame);
    if (!this.message.reasoning_content) delete this.message.reasoning_content;
    if (this.message.tool_calls && !this.message.content) this.message.content = null;
    return this.message.content || this.message.tool_calls || this.message.reasoning_content;
  }
}

function showStatus(a) {
  const parts = [];
  const t = a.timings;
  const seconds = a.first ? (performance.now() - a.first) / 1000 : 0;
  if (t) parts.push(`${t.decode_tokens} tokens, ${t.decode_tps.toFixed(1)} tok/s`);
  else if (a.tokens > 1 && seconds > 0) parts.push(`${a.tokens} tokens, ${((a.tokens - 1) / seconds).toFixed(1)} tok/s`);
  if (t) parts.push(`prompt: ${t.prefill_tokens} tokens read, ${t.cached_tokens} kept, ${t.prefill_tps.toFixed(0)} tok/s`);
  if (t) parts.push(`first token after ${(t.first_token_ms / 1000).toFixed(2)} s`);
  const s = a.speculation ?? a;
  if (s.drafted) parts.push(`drafts: ${s.accepted} of ${s.drafted} accepted (${(100 * s.accepted / s.drafted).toFixed(0)} %)`);
  if (a.finish === 'length') parts.push('cut at the limit of tokens');
  $('status').textContent = parts.join(' · ');
}

function setRunning(controller) {
  running = controller;
  $('send').hidden = !!controller;
  $('stop').hidden = !controller;
}

async function answer() {
  let body;
  showError('');
  try {
    body = request();
  } catch (e) {
    showError(e.message);
    return;
  }
  const controller = new AbortController();
  const a = new Answer();
  setRunning(controller);
  try {
    for await (const chunk of chat(body, $('set-key').value, controller.signal)) a.take(chunk);
  } catch (e) {
    if (e.name !== 'AbortError') showError(e.message);
  }
  const said = a.close();
  a.update();
  if (said) messages.push(a.message);
  keep('messages', messages);
  setRunning(null);
  showAll();
  showStatus(a);
  $('announcer').textContent = a.message.content ?? '';
}

function say(text) {
  messages.push({role: 'user', content: text});
  keep('messages', messages);
  showAll();
  answer();
}

// Answers when every call of the last message has its result.
function addResult(id, text) {
  if (running) return;
  messages.push({role: 'tool', tool_call_id: id, content: text});
  keep('messages', messages);
  showAll();
  const last = messages.findLast(m => m.role === 'assistant');
  if (last.tool_calls.every(c => messages.some(m => m.tool_call_id === c.id))) answer();
}

function again() {
  if (running) return;
  messages.pop();
  showAll();
  answer();
}

function edit(i) {
  if (running) return;
  $('input').value = messages[i].content;
  messages.length = i;
  keep('messages', messages);
  showAll();
  $('input').focus();
}

function startAnew() {
  if (running) running.abort();
  messages = [];
  keep('messages', messages);
  showError('');
  $('status').textContent = '';
  $('drafts').hidden = true;
  showAll();
  $('input').focus();
}

// ---- export ----

function save(name, type, text) {
  const link = element('a', {download: name, href: URL.createObjectURL(new Blob([text], {type}))});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function exported() {
  const system = $('set-system').value.trim();
  return system ? [{role: 'system', content: system}, ...messages] : messages;
}

function markdown() {
  const names = {system: 'System', user: 'You', assistant: 'Model', tool: 'Tool'};
  return exported().map(m => {
    const calls = (m.tool_calls ?? []).map(c => `    ${c.function.name}(${c.function.arguments})`);
    const thought = m.reasoning_content ? [m.reasoning_content.replace(/^/gm, '> ')] : [];
    return [`## ${names[m.role]}`, ...thought, ...(m.content ? [m.content] : []), ...calls].join('\n\n');
  }).join('\n\n') + '\n';
}

// ---- start ----

async function showModel() {
  try {
    const key = $('set-key').value;
    const r = await fetch('v1/models', {headers: key ? {Authorization: 'Bearer ' + key} : {}});
    if (r.status === 401) throw new Error('This server wants an API key: Settings, API key.');
    const m = (await r.json()).data[0];
    $('model').textContent = m.id;
    $('model').title = `${m.context_length} tokens of context`;
    showError('');
  } catch (e) {
    showError(e.message);
  }
}

function onSubmit(e) {
  e.preventDefault();
  const text = $('input').value.trim();
  if (!text || running) return;
  $('input').value = '';
  say(text);
}

function onKey(e) {
  if (e.key === 'Escape' && running) running.abort();
  else if (e.key === 'Escape' && !$('settings').hidden) toggleSettings();
  else if (e.altKey && e.key.toLowerCase() === 'n') startAnew();
  else if (e.altKey && e.key.toLowerCase() === 's') toggleSettings();
  else return;
  e.preventDefault();
}

function start() {
  loadSettings();
  messages = load('messages', []);
  showAll();
  $('composer').addEventListener('submit', onSubmit);
  $('input').addEventListener('keydown', e => {
    if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    $('composer').requestSubmit();
  });
  $('stop').addEventListener('click', () => running?.abort());
  $('new').addEventListener('click', startAnew);
  $('settings-button').addEventListener('click', toggleSettings);
  $('theme').addEventListener('click', () => setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'));
  $('export-json').addEventListener('click', () => save('conversation.json', 'application/json', JSON.stringify(exported(), null, 2) + '\n'));
  $('export-text').addEventListener('click', () => save('conversation.md', 'text/markdown', markdown()));
  $('settings').addEventListener('change', saveSettings);
  $('set-key').addEventListener('change', showModel);
  document.addEventListener('keydown', onKey);
  showModel();
}

start();
