// The colour theme, set before the first paint. A classic script, so that it blocks painting.
// Decides: light or dark as the system has it, unless the reader chose; the choice is kept here alone.
"use strict";
(() => {
  const KEY = "federation-theme";
  const order = ["auto", "light", "dark"];
  const read = () => {
    try {
      return order.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto";
    } catch {
      return "auto"; // storage may be forbidden
    }
  };
  const apply = (choice) => {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  };
  const label = (button, choice) => {
    button.textContent = `Theme: ${choice}`;
    button.title = "Switch between the system's theme, light and dark";
  };
  apply(read());
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    let choice = read();
    label(button, choice);
    button.addEventListener("click", () => {
      choice = order[(order.indexOf(choice) + 1) % order.length];
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // it then lasts as long as the page
      }
      apply(choice);
      label(button, choice);
    });
  });
})();
