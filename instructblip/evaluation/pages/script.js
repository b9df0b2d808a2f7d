"use strict";
// Examples: sorted and filtered by the two lists, or by the address: report.html#sort=error&recipe=vsr
const cards = Array.from(document.querySelectorAll(".card[data-recipe]"));
const place = new Map(cards.map((card, number) => [card, number]));
const error = card => card.dataset.error === "" ? -1 : Number(card.dataset.error);
const orders = {
  drawn: (a, b) => place.get(a) - place.get(b),
  error: (a, b) => error(b) - error(a) || place.get(a) - place.get(b),
  right: (a, b) => error(a) - error(b) || place.get(a) - place.get(b),
};
function arrange(box) {
  const sort = box.querySelector("[name=sort]").value, recipe = box.querySelector("[name=recipe]").value;
  const list = box.querySelector(".cards"), own = cards.filter(card => box.contains(card));
  own.sort(orders[sort]).forEach(card => {
    card.hidden = recipe !== "" && card.dataset.recipe !== recipe;
    list.append(card);
  });
  box.querySelector("output").value = own.filter(card => !card.hidden).length + " shown";
}
function addressed() {
  const asked = new URLSearchParams(location.hash.slice(1));
  document.querySelectorAll(".examples").forEach(box => {
    for (const select of box.querySelectorAll("select")) {
      const value = asked.get(select.name);
      if (value !== null && Array.from(select.options).some(option => option.value === value)) select.value = value;
    }
    arrange(box);
  });
}
document.querySelectorAll(".examples select").forEach(select =>
  select.addEventListener("change", () => arrange(select.closest(".examples"))));
addEventListener("hashchange", addressed);
addressed();
