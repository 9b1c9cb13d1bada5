// Light or dark: the system's choice, until the reader makes one.

export const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemIsDark.matches;
}

export function startTheme(button, onChange) {
  const changed = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    onChange();
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    changed();
  });
  systemIsDark.addEventListener("change", changed);
  button.textContent = isDark() ? "Light" : "Dark";
}

export const ofPage = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
