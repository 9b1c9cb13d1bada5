// Elements from code: text always goes in as text, never as markup.

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// What is packed in the page stands below the script that draws the map, and is there once all of it is read.
export const parsed = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
  else resolve();
});

export const byId = (id) => document.getElementById(id);

// A group of radio buttons that looks like one row of buttons.
export function choices(fieldset, name, options, chosen, onChange) {
  fieldset.querySelectorAll(".choice").forEach((old) => old.remove());
  for (const { id, label } of options) {
    const input = element("input", { type: "radio", name, value: id });
    input.checked = id === chosen;
    input.addEventListener("change", () => onChange(id));
    fieldset.append(element("label", { class: "choice" }, input, element("span", {}, label)));
  }
}
