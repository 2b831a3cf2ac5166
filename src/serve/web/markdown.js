// Markdown as the models write it, into elements: text never becomes HTML.

export function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name in e && typeof value !== 'string') e[name] = value;
    else e.setAttribute(name, value);
  e.append(...children);
  return e;
}

const inlinePattern = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*([\s\S]+?)\*\*|__([\s\S]+?)__|\*([^\s*](?:[^*]*[^\s*])?)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g;

function inline(text) {
  const out = [];
  let at = 0;
  for (const m of text.matchAll(inlinePattern)) {
    if (m.index > at) out.push(text.slice(at, m.index));
    if (m[2] !== undefined) out.push(element('code', {}, m[2].trim()));
    else if (m[3] ?? m[4]) out.push(element('strong', {}, ...inline(m[3] ?? m[4])));
    else if (m[5]) out.push(element('em', {}, ...inline(m[5])));
    else out.push(element('a', {href: m[7], rel: 'noreferrer noopener', target: '_blank'}, m[6]));
    at = m.index + m[0].length;
  }
  if (at < text.length) out.push(text.slice(at));
  return out;
}

function codeBlock(lines, i) {
  const fence = lines[i].match(/^\s*(`{3,}|~{3,})/)[1];
  const body = [];
  for (i++; i < lines.length && !lines[i].trimStart().startsWith(fence); i++) body.push(lines[i]);
  return [element('pre', {}, element('code', {}, body.join('\n'))), i + 1];
}

const itemPattern = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)$/;

function list(lines, i) {
  const ordered = itemPattern.exec(lines[i])[1] !== undefined;
  const e = element(ordered ? 'ol' : 'ul');
  if (ordered) e.start = Number(itemPattern.exec(lines[i])[1]);
  for (let m; i < lines.length && (m = itemPattern.exec(lines[i])) && (m[1] !== undefined) === ordered; i++) {
    const item = [m[2]];
    while (i + 1 < lines.length && /^\s{2,}\S/.test(lines[i + 1]) && !itemPattern.test(lines[i + 1])) item.push(lines[++i].trim());
    e.append(element('li', {}, ...inline(item.join('\n'))));
  }
  return [e, i];
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, '').split('|').map(c => c.trim());
}

function table(lines, i) {
  const e = element('table', {}, element('tr', {}, ...cells(lines[i]).map(c => element('th', {}, ...inline(c)))));
  for (i += 2; i < lines.length && lines[i].includes('|'); i++)
    e.append(element('tr', {}, ...cells(lines[i]).map(c => element('td', {}, ...inline(c)))));
  return [e, i];
}

function isBlockStart(lines, i) {
  return /^\s*(`{3,}|~{3,})|^#{1,6}\s|^>\s?/.test(lines[i]) || itemPattern.test(lines[i]) || isTable(lines, i);
}

function isTable(lines, i) {
  return lines[i].includes('|') && i + 1 < lines.length && /^\s*\|?[\s:|-]*-[\s:|-]*$/.test(lines[i + 1]) && lines[i + 1].includes('|');
}

function block(lines, i) {
  if (/^\s*(`{3,}|~{3,})/.test(lines[i])) return codeBlock(lines, i);
  if (itemPattern.test(lines[i])) return list(lines, i);
  if (isTable(lines, i)) return table(lines, i);
  const heading = lines[i].match(/^(#{1,6})\s+(.*)$/);
  if (heading) return [element('h' + Math.min(heading[1].length + 1, 4), {}, ...inline(heading[2])), i + 1];
  const body = [lines[i]];
  const isQuote = lines[i].startsWith('>');
  for (i++; i < lines.length && lines[i].trim() && (isQuote ? lines[i].startsWith('>') : !isBlockStart(lines, i)); i++) body.push(lines[i]);
  if (isQuote) return [element('blockquote', {}, ...inline(body.map(l => l.replace(/^>\s?/, '')).join('\n'))), i];
  return [element('p', {}, ...inline(body.join('\n'))), i];
}

// Replaces the content of an element.
export function render(into, text) {
  const lines = text.split('\n');
  const out = [];
  for (let i = 0; i < lines.length;) {
    if (!lines[i].trim()) {
      i++;
      continue;
    }
    const [e, next] = block(lines, i);
    out.push(e);
    i = next;
  }
  into.replaceChildren(...out);
}
