"""How a parity report's page looks, beyond the style of the project's pages."""

STYLE = """
:root { --good: #00875a; --bad: #d6302b; --heat: #2f7fc1; }
@media (prefers-color-scheme: dark) { :root { --good: #35b98a; --bad: #ff6b5e; --heat: #4f9fe0; } }
h1 { margin: 0 0 .6rem; font-size: 1.7rem; line-height: 1.2; }
h3 { margin: 2rem 0 .5rem; }
p, dd { max-width: 48rem; }

.verdict { border-left: .4rem solid var(--tone); padding: .2rem 0 .2rem 1.2rem; font-size: 1.1em; }
.good { --tone: var(--good); }
.bad { --tone: var(--bad); }
.verdict h1 { color: var(--tone); }
.number { white-space: nowrap; }
.numbers { display: grid; gap: .8rem; margin: 1.6rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.numbers div { border: 1px solid color-mix(in srgb, currentColor 18%, transparent);
  border-radius: .5rem; padding: .6rem .9rem;
  display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.numbers dt { opacity: .75; }
.numbers dd { margin: 0; font-size: 1.5rem; }
.first { border: 2px solid var(--bad); border-radius: .5rem; padding: 0 1.2rem .6rem;
  margin-top: 1.6rem; }
.first h2 { margin-top: .8rem; }

code, pre { font-family: ui-monospace, monospace; font-size: .95em; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; padding: .6rem .9rem; border-radius: .4rem; max-width: 48rem;
  background: color-mix(in srgb, currentColor 8%, transparent); }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
details dt { font-weight: 600; }
details dd { margin: 0 0 .8rem; }

caption { text-align: left; padding: .3rem 0; font-weight: 600; white-space: nowrap; }
/* Collapsed borders would not stay with the first column. */
table { border-collapse: separate; border-spacing: 0; }
th[scope=row] { position: sticky; left: 0; background: Canvas; }
.words td, .words th { white-space: normal; text-align: left; vertical-align: top; }
.words code { overflow-wrap: normal; }
.cell { display: inline-block; border-radius: .25rem; padding: 0 .4rem;
  background: color-mix(in srgb, var(--heat) var(--share, 0%), transparent);
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.cell small { opacity: .85; display: inline-block; min-width: 3em; }
.cell.bad { background: var(--bad); color: Canvas; font-weight: 600; }
.legend { max-width: none; }
.legend > span { margin-right: .5rem; white-space: nowrap; }
.legend .key { margin-left: .5rem; }

.curves { grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr));
  align-items: start; }
.curves svg { max-width: 38rem; }
.panels { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(max(9.4rem, min(14rem, 40%)), 1fr)); }
.panels svg { width: 100%; height: auto; }
figure { min-width: 0; }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr));
  max-width: 72rem; }
.pictures img { image-rendering: pixelated; }
.origin { display: flex; flex-wrap: wrap; gap: 0 4rem; }

@media (max-width: 40rem) {
  body { margin-top: 1rem; }
  .first { padding: 0 .8rem .4rem; }
  th, td { padding: .25rem .3rem; font-size: 13px; }
  th { white-space: normal; }
  th[scope=row] { min-width: 5.5rem; }
  .cell small { display: none; }
}
@media print {
  body { max-width: none; margin: 0; }
  h2, h3 { break-after: avoid; }
  figure, tr, .first, .verdict, .numbers div { break-inside: avoid; }
  .wide { overflow: visible; }
}
"""
