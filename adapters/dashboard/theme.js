/** Light or dark: as the system has it, unless one is chosen here. */

const KEPT = "perdure.theme";
const NEXT = /** @type {Object<string, string>} */ ({ system: "light", light: "dark", dark: "system" });
const SHOWN = /** @type {Object<string, string>} */ ({ system: "◐", light: "☀", dark: "☾" });

/**
 * Let a button choose.
 * @param {HTMLElement} button
 */
export function chooseTheme(button) {
  let chosen = localStorage.getItem(KEPT) ?? "system";
  if (!(chosen in NEXT)) chosen = "system";
  function apply() {
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.textContent = SHOWN[chosen];
    button.setAttribute("aria-label", `Colours: ${chosen}`);
    button.title = `Colours: ${chosen}`;
  }
  button.addEventListener("click", () => {
    chosen = NEXT[chosen];
    localStorage.setItem(KEPT, chosen);
    apply();
  });
  apply();
}
