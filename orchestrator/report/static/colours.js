// Cividis (Nunez, Anderton and Renslow, 2018), as in the printed figures, and ink that can be read on it.

export const CIVIDIS =
  ("00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f7073767676" +
    "7d7c788482798c8878938e789b9476a39a74aba072b4a76fbcae6cc4b468cdbb63d5c25edec958e7d150f0d846f9e03afee838")
    .match(/.{6}/g)
    .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

const asHex = (channels) => `#${channels.map((value) => Math.round(value).toString(16).padStart(2, "0")).join("")}`;

// The colour at a share (0 to 1) of the scale.
export function colourAt(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const i = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return asHex(CIVIDIS[i].map((value, channel) => value + (at - i) * (CIVIDIS[i + 1][channel] - value)));
}

// Black or white, whichever has the higher contrast, by the relative luminance of WCAG 2.
export function inkOn(hex) {
  const [r, g, b] = [1, 3, 5]
    .map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

export const ramp = () => `linear-gradient(90deg, ${CIVIDIS.map(asHex).join(", ")})`;
