// The drafts of one step of speculation as a tree: accepted ones filled.

const svg = 'http://www.w3.org/2000/svg';

function node(tag, attributes, text) {
  const e = document.createElementNS(svg, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

// Column: depth. Row: leaves from top to bottom, a parent beside its first child.
function layout(parents) {
  const children = parents.map(() => []);
  parents.forEach((p, i) => i && children[p].push(i));
  const depth = [], row = [];
  let rows = 0;
  const order = [[0, 0]];
  while (order.length) {
    const [i, d] = order.pop();
    depth[i] = d;
    row[i] = rows;
    if (!children[i].length) rows++;
    for (const c of children[i].toReversed()) order.push([c, d + 1]);
  }
  return {depth, row, rows};
}

const label = text => JSON.stringify(text).slice(1, -1).replaceAll(' ', '␣').slice(0, 9);

// drafts: {parents: [0, …], texts: […], held: [bool]}; entry 0 is the token that they follow. False: there is nothing to
// draw.
export function drawTree(into, drafts) {
  const {parents, texts, held} = drafts;
  if (parents.length < 2) return false;
  const {depth, row, rows} = layout(parents);
  const dx = 64, dy = 36, x = i => 36 + depth[i] * dx, y = i => 12 + row[i] * dy;
  const parts = parents.map((p, i) => {
    const g = node('g', {class: held[i] ? 'held' : ''});
    if (i) g.append(node('line', {x1: x(p) + 5, y1: y(p), x2: x(i) - 5, y2: y(i)}));
    g.append(node('circle', {cx: x(i), cy: y(i), r: 5}));
    g.append(node('text', {x: x(i), y: y(i) + 18}, label(texts[i])));
    return g;
  });
  into.setAttribute('width', Math.max(...depth) * dx + 72);
  into.setAttribute('height', rows * dy);
  into.replaceChildren(...parts);
  return true;
}
