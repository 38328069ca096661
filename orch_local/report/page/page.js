"use strict";
// The theme switch, and the table of questions. All text comes from a data set or a model, so it only ever
// becomes text nodes; nothing here reads HTML.
(() => {
  const el = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((one) => one !== null && one !== ""));
    return made;
  };
  const byId = (id) => document.getElementById(id);
  const PAGE_SIZE = 50;
  const ID_DIGITS = 6;

  const themes = { auto: "automatic", light: "light", dark: "dark" };
  const setUpTheme = (button) => {
    let now = "auto";
    try { now = localStorage.getItem("orch-local-theme") || "auto"; } catch { /* a file may have no storage */ }
    const apply = () => {
      if (!(now in themes)) now = "auto";
      if (now === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = now;
      button.textContent = `Theme: ${themes[now]}`;
    };
    button.addEventListener("click", () => {
      const names = Object.keys(themes);
      now = names[(names.indexOf(now) + 1) % names.length];
      try { localStorage.setItem("orch-local-theme", now); } catch { /* see above */ }
      apply();
    });
    apply();
    button.hidden = false;
  };

  const data = (id) => JSON.parse(byId(id).textContent);
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return JSON.parse(await new Response(stream).text());
  };

  // What a reader may want to see; each test gets the table and the number of a row.
  const SHOWN = {
    all: ["All questions", () => true],
    wrong: ["ORCH wrong", (t, row) => t.verdict(t.orch[row], row) === 0],
    right: ["ORCH right", (t, row) => t.verdict(t.orch[row], row) === 1],
    unscored: ["ORCH unscored", (t, row) => t.orch[row] < 0],
    disagree: ["Agents disagree", (t, row) => t.distinct(row) > 1],
    overruled: ["ORCH overruled the majority",
      (t, row) => t.orch[row] >= 0 && t.majority[row] >= 0 && t.orch[row] !== t.majority[row]],
    saved: ["Saved: ORCH right, majority not",
      (t, row) => t.verdict(t.orch[row], row) === 1 && t.majority[row] !== t.gold[row]],
    broken: ["Broken: majority right, ORCH wrong",
      (t, row) => t.verdict(t.orch[row], row) === 0 && t.majority[row] === t.gold[row]],
    nobody: ["No agent right", (t, row) => t.gold[row] >= 0 && t.panel.every((one) => one[row] !== t.gold[row])],
    unusable: ["An agent without an answer",
      (t, row) => t.panel.some((one, agent) => one[row] < 0 && t.named(t.outcome[agent], row) !== "not_asked")],
    nogold: ["Without gold", (t, row) => t.gold[row] < 0],
  };

  const WORDS = {
    merge: "by the merge agent", unanimous: "unanimous, so the merge agent was not asked",
    majority: "by majority vote", confidence: "by stated confidence", probability: "by probability",
    unscored: "unscored",
  };

  class Table {
    constructor(index, meta) {
      Object.assign(this, index, meta);
      this.named = (column, row) => (column.codes[row] < 0 ? "" : column.names[column.codes[row]]);
      this.place = new Map();
      this.detailed.forEach((row, rank) => this.place.set(row, rank));
      this.low = this.text.map((text, row) =>
        `${this.named(this.category, row)} ${text}`.toLowerCase());
      this.unpacked = new Map();
    }

    verdict(answer, row) {
      if (answer < 0 || this.gold[row] < 0) return -1;
      return answer === this.gold[row] ? 1 : 0;
    }

    // Identifiers are digits at random: only a long piece of one can be meant.
    matches(row, words) {
      return words.every((word) => this.low[row].includes(word)
        || (word.length >= ID_DIGITS && this.ids[row].toLowerCase().startsWith(word)));
    }

    distinct(row) {
      return new Set(this.panel.map((one) => one[row]).filter((answer) => answer >= 0)).size;
    }

    async details(row) {
      let rank = this.place.get(row);
      if (rank === undefined) return null;
      let block = 0;
      while (rank >= this.blocks[block]) rank -= this.blocks[block++];
      if (!this.unpacked.has(block)) this.unpacked.set(block, unpack(data(`block-${block}`)));
      return (await this.unpacked.get(block))[rank];
    }
  }

  const MARKS = { 1: ["\u2713", "right", "ok"], 0: ["\u2717", "wrong", "bad"] };
  const marked = (table, answer, row, none) => {
    if (answer < 0) return [el("span", { class: "soft" }, none || "\u2013")];
    const text = table.answers[answer];
    const verdict = table.verdict(answer, row);
    if (verdict < 0) return [text];
    const [sign, word, kind] = MARKS[verdict];
    return [text, " ", el("span", { class: kind, "aria-hidden": "true" }, sign), el("span", { class: "sr" }, word)];
  };
  const result = (table, row) => {
    const verdict = table.verdict(table.orch[row], row);
    if (table.orch[row] < 0) return el("span", { class: "pill none" }, "unscored");
    if (verdict < 0) return el("span", { class: "pill none" }, "no gold");
    return el("span", { class: `pill ${MARKS[verdict][2]}` }, `${MARKS[verdict][0]} ${MARKS[verdict][1]}`);
  };

  const headOf = (table) => [
    "Question", "Category", "Gold", ...table.agents, "Majority", "ORCH", "Result",
  ];
  const cellsOf = (table, row) => [
    [table.named(table.category, row)],
    [table.gold[row] < 0 ? "\u2013" : table.answers[table.gold[row]]],
    ...table.panel.map((one, agent) =>
      marked(table, one[row], row, table.named(table.outcome[agent], row).replaceAll("_", " "))),
    marked(table, table.majority[row], row),
    marked(table, table.orch[row], row),
    [result(table, row)],
  ];

  const paragraph = (label, text) =>
    text ? el("p", { class: "said" }, el("b", {}, `${label} `), el("span", { class: "foreign" }, text)) : null;
  const analysisOf = (title, entry, extra, kind = "agent") => {
    if (!entry) return el("article", { class: "analysis" }, el("h3", {}, title), el("p", { class: "soft" }, extra));
    const [outcome, answer, confidence, shares, eliminated, reasoning, thought, raw, error] = entry;
    const facts = [answer === null ? `${outcome.replaceAll("_", " ")}, unscored` : `answers ${answer}`];
    if (confidence !== null) facts.push(`confidence ${confidence}`);
    const bars = Object.entries(shares).map(([label, share]) =>
      `${label}\u00a0${(100 * share).toFixed(1)}\u00a0%`).join(", ");
    return el("article", { class: `analysis ${kind}` },
      el("h3", {}, title, " ", el("span", { class: "verdict" }, facts.join(", "))),
      paragraph("", reasoning), paragraph("Eliminated:", eliminated), paragraph("Probabilities:", bars),
      paragraph("Thought:", thought), paragraph("Error:", error), paragraph("Raw output:", raw));
  };
  const storyOf = (table, row, found) => {
    const how = table.named(table.how, row);
    const reason = table.named(table.reason, row);
    const decided = table.orch[row] < 0
      ? `ORCH: unscored${reason ? ` (${reason})` : ""}.`
      : `ORCH: ${table.answers[table.orch[row]]}, ${WORDS[how] || how}.`;
    const gold = table.gold[row] < 0 ? "No gold answer." : `Gold: ${table.answers[table.gold[row]]}.`;
    const id = el("p", { class: "soft" }, "id ", el("code", {}, table.ids[row]), " ",
      el("a", { href: `#q=${encodeURIComponent(table.ids[row])}` }, "link to this question"));
    if (!found) {
      return el("div", { class: "story" }, id, el("p", { class: "foreign" }, table.text[row]), el("p", {}, `${decided} ${gold}`),
        el("p", { class: "soft" }, "For want of room this file has no more of this question; ",
          el("code", {}, `orch-local show RUN ${table.ids[row]}`), " prints all of it."));
    }
    const [text, choices, panel, merged] = found;
    const goldText = table.gold[row] < 0 ? null : table.answers[table.gold[row]];
    const finalText = table.orch[row] < 0 ? null : table.answers[table.orch[row]];
    const list = el("ul", { class: "choices" }, ...choices.map((choice, number) => {
      const label = "ABCDEFGHIJ"[number];
      const notes = [label === goldText ? "gold" : "", label === finalText ? "ORCH" : ""].filter(Boolean);
      return el("li", { class: label === goldText ? "gold" : null }, el("b", {}, label), " ",
        el("span", { class: "foreign" }, choice), notes.length ? el("span", { class: "tag" }, notes.join(", ")) : null);
    }));
    return el("div", { class: "story" }, id, el("p", { class: "foreign question" }, text),
      choices.length ? list : null,
      el("p", { class: "decided" }, `${decided} ${gold}`),
      el("div", { class: "panel" },
        ...panel.map((entry, agent) => analysisOf(table.agents[agent], entry,
          table.named(table.outcome[agent], row) === "not_asked" ? "not asked by the router"
            : "its analysis is not in the store any more")),
        table.merger && merged ? analysisOf("Merge agent", merged, "", "merger") : null));
  };

  class Browser {
    constructor(table) {
      this.table = table;
      this.page = 0;
      this.rows = [];
      this.body = byId("questions-table").tBodies[0];
      this.fill(byId("outcome"), Object.entries(SHOWN).map(([key, [label]]) => [key, label]));
      this.fill(byId("category"), [["", "All categories"],
        ...table.category.names.map((name, number) => [String(number), name])]);
      byId("questions-table").tHead.append(el("tr", {}, ...headOf(table).map((text) => el("th", { scope: "col" }, text))));
      for (const id of ["outcome", "category"]) byId(id).addEventListener("change", () => this.filter());
      let timer = 0;
      byId("find").addEventListener("input", () => {
        clearTimeout(timer);
        timer = setTimeout(() => this.filter(), 120);
      });
      byId("first").addEventListener("click", () => this.leaf(0));
      byId("previous").addEventListener("click", () => this.leaf(this.page - 1));
      byId("next").addEventListener("click", () => this.leaf(this.page + 1));
      byId("last").addEventListener("click", () => this.leaf(this.pages - 1));
      window.addEventListener("hashchange", () => this.follow());
      this.body.addEventListener("keydown", (event) => this.leave(event));
      this.filter();
      byId("browser").hidden = false;
      this.follow();
    }

    get pages() { return Math.max(1, Math.ceil(this.rows.length / PAGE_SIZE)); }

    fill(select, options) {
      select.append(...options.map(([value, label]) => el("option", { value }, label)));
    }

    filter() {
      const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
      const [, wanted] = SHOWN[byId("outcome").value];
      const category = byId("category").value;
      const table = this.table;
      this.rows = [];
      for (let row = 0; row < table.ids.length; row += 1) {
        if (category !== "" && table.category.codes[row] !== Number(category)) continue;
        if (!wanted(table, row) || !table.matches(row, words)) continue;
        this.rows.push(row);
      }
      this.turn(0);
    }

    turn(page) {
      this.page = Math.min(Math.max(page, 0), this.pages - 1);
      const begin = this.page * PAGE_SIZE;
      const rows = this.rows.slice(begin, begin + PAGE_SIZE);
      this.body.replaceChildren(...rows.map((row) => this.line(row)));
      const many = (n) => n.toLocaleString("en");
      byId("count").textContent = rows.length
        ? `${many(this.rows.length)} of ${many(this.table.ids.length)} questions; ${many(begin + 1)} to ${many(begin + rows.length)} are shown.`
        : "No question matches.";
      byId("page").textContent = `Page ${many(this.page + 1)} of ${many(this.pages)}`;
      for (const id of ["first", "previous"]) byId(id).setAttribute("aria-disabled", String(this.page === 0));
      for (const id of ["next", "last"]) byId(id).setAttribute("aria-disabled", String(this.page >= this.pages - 1));
    }

    // By a button below the table: what comes is read from its beginning.
    leaf(page) {
      this.turn(page);
      byId("count").scrollIntoView({ block: "nearest" });
    }

    line(row) {
      const table = this.table;
      const button = el("button", {
        type: "button", class: "open", "aria-expanded": "false", "aria-controls": `story-${row}`,
      }, el("span", { class: "foreign" }, table.text[row] || table.ids[row]));
      const heads = headOf(table);
      const line = el("tr", { id: `row-${row}` }, el("th", { scope: "row" }, button),
        ...cellsOf(table, row).map((cell, number) => el("td", { "data-head": heads[number + 1] }, ...cell)));
      button.addEventListener("click", () => this.toggle(row, line, button));
      return line;
    }

    // Escape closes the question that the focus is in, or on.
    leave(event) {
      const line = event.key === "Escape" ? event.target.closest("tbody tr") : null;
      const button = line && (line.querySelector(".open") || line.previousElementSibling.querySelector(".open"));
      if (!button || button.getAttribute("aria-expanded") !== "true") return;
      button.focus();
      button.click();
    }

    async toggle(row, line, button) {
      const known = byId(`story-${row}`);
      if (known) {
        known.remove();
        button.setAttribute("aria-expanded", "false");
        return;
      }
      const cell = el("td", { colspan: String(line.cells.length) }, el("p", { class: "soft" }, "Unpacking …"));
      line.after(el("tr", { class: "opened", id: `story-${row}` }, cell));
      button.setAttribute("aria-expanded", "true");
      try {
        cell.replaceChildren(storyOf(this.table, row, await this.table.details(row)));
      } catch (error) {
        cell.replaceChildren(el("p", {}, `This question cannot be unpacked: ${error}`));
      }
    }

    // A link such as #q=4caa550bf561b455 opens that question.
    follow() {
      const found = /^#q=(.+)$/.exec(location.hash);
      if (!found) return;
      let id = found[1];
      try { id = decodeURIComponent(id); } catch { /* then it is meant as it stands */ }
      byId("outcome").value = "all";
      byId("category").value = "";
      byId("find").value = id;
      this.filter();
      const row = this.rows[0];
      if (row === undefined) return;
      byId("questions").scrollIntoView();
      const button = byId(`row-${row}`).querySelector("button");
      button.focus({ preventScroll: true });
      if (button.getAttribute("aria-expanded") === "false") button.click();
    }
  }

  setUpTheme(byId("theme"));
  if (byId("index")) {
    unpack(data("index")).then((index) => new Browser(new Table(index, data("meta")))).catch((error) => {
      byId("browser").replaceChildren(el("p", { class: "warn" },
        `This browser cannot unpack the table (${error}). orch-local show prints any question.`));
      byId("browser").hidden = false;
    });
  }
})();
