// Click on a heading, or Enter on it: sort by that column; again: the other way. Empty cells stay at the end.
document.querySelectorAll("table.sortable th button").forEach((button) => {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = heading.closest("table"), body = table.tBodies[0];
    const column = heading.cellIndex, down = heading.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? "";
    const numbers = [...body.rows].every((row) => key(row) === "" || !isNaN(key(row)));
    const compare = (a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
      const order = numbers ? key(a) - key(b) : key(a).localeCompare(key(b));
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  });
});
