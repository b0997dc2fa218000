"""How our pages look: their frame, style sheet, light and dark, and the few lines of script.

Colours: blue and orange are those of `processing.draw` (truth and prediction).
"""

import html

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f6f4; --card: #ffffff; --ink: #1d1f23; --soft: #656a73; --rule: #e4e4e0; --track: #ececea;
  --c0: #1667c7; --c1: #d9580d; --c2: #1f8a4c; --c3: #b0358a; --c4: #8a6d00; --c5: #5a49c8;
  --truth: #1667c7; --prediction: #c94f08; --right: #1f8a4c; }
@media (prefers-color-scheme: dark) { :root {
  --page: #131417; --card: #1c1e22; --ink: #e8e8e6; --soft: #9a9fa8; --rule: #2e3137; --track: #2a2d33;
  --c0: #5aa9ff; --c1: #ff8d45; --c2: #4cc47f; --c3: #e37cc4; --c4: #e0bf45; --c5: #a397ff;
  --truth: #5aa9ff; --prediction: #ff8d45; --right: #4cc47f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 44px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; letter-spacing: -.01em; margin: 44px 0 14px; }
h3 { font-size: 14px; font-weight: 600; margin: 0; }
.lead { color: var(--soft); margin: 0 0 24px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); margin: 0;
  padding: 8px 10px; }
.facts div { padding: 8px 12px; min-width: 0; }
dt { color: var(--soft); font-size: 12px; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--soft); font-size: 13px; }
pre { font: 12px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow: auto;
  max-height: 420px; padding: 14px 18px; margin: 8px 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-size: 12px; font-weight: 500; }
th, td { padding: 9px 16px; border-bottom: 1px solid var(--rule); vertical-align: baseline; white-space: nowrap; }
tr:last-child td { border-bottom: 0; } td.group { font-weight: 600; }
tr.same td { border-bottom-color: transparent; } tr.same:last-child td { border-bottom: 0; }
td.num, th.num { text-align: right; } td.wide { width: 34%; min-width: 150px; }
.small { color: var(--soft); font-size: 13px; }
.bar { position: relative; height: 8px; border-radius: 4px; background: var(--track); }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--c0); }
.bar b { position: absolute; top: -4px; bottom: -4px; width: 2px; background: var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 14px; }
figure { margin: 0; padding: 14px 16px 10px; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; margin-bottom: 6px; }
.key { font-size: 12px; color: var(--soft); white-space: nowrap; }
.key i { display: inline-block; width: 9px; height: 9px; border-radius: 3px; margin-right: 5px; }
.key b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.chart { display: block; width: 100%; height: auto; }
.chart text { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.line.faint { stroke-width: 1; opacity: .35; } .line.dashed { stroke-dasharray: 5 4; stroke-width: 1.3; }
.hit rect { fill: transparent; } .hit line { stroke: var(--soft); stroke-dasharray: 2 3; }
.hit line, .hit circle { opacity: 0; } .hit:hover line, .hit:hover circle { opacity: 1; }
.bartitle { display: flex; justify-content: space-between; margin-bottom: 8px; }
.wait { padding: 14px 16px 16px; margin-bottom: 14px; }
.head { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; margin: 26px 0 10px; }
.sort { margin-left: auto; display: flex; gap: 4px; }
input[type=search] { font: inherit; font-size: 12px; color: var(--ink); background: none; width: 130px;
  border: 1px solid var(--rule); border-radius: 6px; padding: 2px 9px; }
button { font: inherit; font-size: 12px; color: var(--soft); background: none; cursor: pointer;
  border: 1px solid var(--rule); border-radius: 6px; padding: 2px 9px; }
button[aria-pressed=true] { color: var(--ink); border-color: var(--soft); background: var(--card); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(204px, 1fr)); gap: 14px; align-items: start; }
.item { overflow: hidden; content-visibility: auto; contain-intrinsic-size: auto 340px; } .item[hidden] { display: none; }
.several { display: grid; grid-template-columns: 1fr 1fr; gap: 1px; } .several img { height: 100%; object-fit: contain; }
.item img { display: block; width: 100%; height: auto; background: var(--track); }
.none { aspect-ratio: 1; display: grid; place-items: center; color: var(--soft); background: var(--track); font-size: 13px; }
.item dl { margin: 0; padding: 10px 12px 12px; font-size: 13px; line-height: 1.4; }
.item dl > div + div { margin-top: 6px; } .item dt { font-size: 11px; } .item dd { white-space: pre-wrap; }
.answer { color: var(--prediction); } .truth { color: var(--truth); } .right { color: var(--right); }
.chip { display: inline-block; font-size: 11px; padding: 0 6px; border-radius: 5px; background: var(--track);
  color: var(--soft); margin: 2px 4px 0 0; font-variant-numeric: tabular-nums; }
footer { color: var(--soft); font-size: 12px; margin-top: 48px; }
@media (max-width: 560px) { main { padding: 24px 14px 48px; } th, td { padding: 8px 10px; } }
@media print { .sort { display: none; } .card { break-inside: avoid; } }
"""

# Without it the page is complete, in the order of the data.
SCRIPT = """
for (const button of document.querySelectorAll('.sort button')) button.onclick = () => {
  const all = button.parentElement.querySelectorAll('button');
  all.forEach(b => b.setAttribute('aria-pressed', b === button));
  const gallery = document.getElementById(button.parentElement.dataset.gallery);
  const key = {order: e => +e.dataset.order, worst: e => +e.dataset.score, best: e => -e.dataset.score}[button.value];
  [...gallery.children].sort((a, b) => key(a) - key(b) || a.dataset.order - b.dataset.order)
    .forEach(e => gallery.append(e));
};
for (const box of document.querySelectorAll('.sort input')) box.oninput = () => {
  const words = box.value.toLowerCase().split(/\\s+/);
  for (const e of document.getElementById(box.parentElement.dataset.gallery).children) {
    const text = e.textContent.toLowerCase();
    e.hidden = !words.every(w => text.includes(w));
  }
};
"""


def page(title: str, body: str, footer: str, style: str = "") -> str:
  """A whole HTML document that needs nothing else.

  Args:
    title: of the browser's tab, plain text.
    body, footer: HTML.
    style: rules that only this page needs.
  """
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{html.escape(title)} · paligemma</title><style>{STYLE}{style}</style></head>"
    f"<body><main>{body}<footer>{footer}</footer></main>"
    f"<script>{SCRIPT}</script></body></html>\n"
  )
