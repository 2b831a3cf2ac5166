// Events of a streamed reply, as they come.

// Yields the data of each event of a text/event-stream; comments and names are left out.
export async function* eventsOf(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const {value, done} = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, {stream: true});
      const lines = rest.split('\n');
      rest = lines.pop();
      for (const line of lines)
        if (line.startsWith('data: ')) yield line.slice(6).trimEnd();
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Asks for a chat completion; yields its chunks. Throws an Error with the server's message.
export async function* chat(body, key, signal) {
  const headers = {'Content-Type': 'application/json'};
  if (key) headers.Authorization = 'Bearer ' + key;
  let response;
  try {
    response = await fetch('v1/chat/completions', {method: 'POST', headers, body: JSON.stringify(body), signal});
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Error('The server cannot be reached. Is it still running?');
  }
  if (!response.ok) throw new Error(await messageOf(response));
  for await (const data of eventsOf(response)) {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk;
  }
}

async function messageOf(response) {
  const text = await response.text();
  let message = text.slice(0, 300);
  try {
    message = JSON.parse(text).error.message;
  } catch { /* not the server's own reply */ }
  const wait = response.headers.get('Retry-After');
  return `${response.status}: ${message}` + (wait ? ` (try again in ${wait} s)` : '');
}
