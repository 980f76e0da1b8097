// Tables that sort by any column, and say by which.

const SHOWN = 15;

// The text of a sort, as the address keeps it: the column's key, "-" for descending.
function sortedBy(rows, columns, order) {
  const descending = order.startsWith("-");
  const column = columns.find((each) => each.key === order.replace("-", ""));
  if (!column) return rows;
  const sign = descending ? -1 : 1;
  return rows.toSorted((a, b) => {
    const [p, q] = [column.value(a), column.value(b)];
    // What is missing comes last in both directions.
    if (p === null || q === null) return (p === null) - (q === null);
    return sign * (typeof p === "string" ? p.localeCompare(q, "en", { numeric: true }) : p - q);
  });
}

function tableOf(host, { id, caption, columns, rows, order, sort, empty }) {
  if (!rows.length) {
    host.replaceChildren(html("p", { class: "empty" }, empty ?? "Nothing is selected."));
    return;
  }
  const sorted = sortedBy(rows, columns, order);
  const head = columns.map((column) => {
    const mine = order.replace("-", "") === column.key;
    const descending = mine && order.startsWith("-");
    const next = mine && !descending ? `-${column.key}` : column.key;
    return html(
      "th",
      {
        scope: "col",
        class: column.numeric ? "number" : null,
        "aria-sort": mine ? (descending ? "descending" : "ascending") : "none",
      },
      html(
        "button",
        { type: "button", onclick: () => sort(id, next), "data-key": `${id}.${column.key}` },
        column.title,
        html("span", { class: "arrow", "aria-hidden": "true" }, mine ? (descending ? "↓" : "↑") : ""),
      ),
    );
  });
  const line = (row) =>
    html(
      "tr",
      {},
      ...columns.map((column, i) =>
        html(
          i ? "td" : "th",
          {
            class: [column.numeric ? "number" : "", column.wide ? "wide" : ""].join(" ").trim() || null,
            scope: i ? null : "row",
          },
          ...[column.show ? column.show(row) : String(column.value(row) ?? "–")].flat(),
        ),
      ),
    );
  const body = html("tbody", {}, ...sorted.slice(0, SHOWN).map(line));
  const count = html("span", {}, sorted.length > SHOWN ? ` (the first ${SHOWN} of ${sorted.length})` : "");
  const table = html(
    "table",
    { id: `table-${id}` },
    html("caption", {}, caption, count),
    html("thead", {}, html("tr", {}, ...head)),
    body,
  );
  const frame = html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  const focused = document.activeElement?.getAttribute("data-key");
  host.replaceChildren(frame);
  if (sorted.length > SHOWN) {
    const more = html(
      "button",
      {
        type: "button",
        class: "more",
        onclick: () => {
          body.append(...sorted.slice(SHOWN).map(line));
          count.remove();
          more.remove();
        },
      },
      `Show all ${sorted.length.toLocaleString("en")} lines`,
    );
    host.append(more);
  }
  // A sort by keyboard leaves the keyboard where it was.
  if (focused) host.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

// The numbers of a plot, as a table that is filled when it is opened.

function numbersOf(host, caption, head, lines) {
  const details = html("details", { class: "numbers" }, html("summary", {}, "Numbers"));
  details.addEventListener(
    "toggle",
    () => {
      const rows = lines().map((cells) =>
        html("tr", {}, ...cells.map((cell, i) => html(i ? "td" : "th", { class: i ? "number" : null, scope: i ? null : "row" }, cell))),
      );
      details.append(
        html(
          "div",
          { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
          html(
            "table",
            {},
            html("caption", {}, caption),
            html("thead", {}, html("tr", {}, ...head.map((cell, i) => html("th", { scope: "col", class: i ? "number" : null }, cell)))),
            html("tbody", {}, ...rows),
          ),
        ),
      );
    },
    { once: true },
  );
  host.append(details);
}
