// Elements made of text alone, and times as people say them.

export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== "" && child != null && child !== false));
  return made;
}

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const first = UNITS.findIndex(([size]) => whole >= size);
  if (first < 0) return "0 s";
  const [size, unit] = UNITS[first];
  const text = `${Math.floor(whole / size)} ${unit}`;
  const [less, name] = UNITS[first + 1] ?? [0, ""];
  const rest = less ? Math.floor((whole % size) / less) : 0;
  return rest ? `${text} ${rest} ${name}` : text;
}

let ahead = 0; // the server's clock less this browser's, in seconds

export function setClock(now) {
  ahead = now - Date.now() / 1000;
}

export const now = () => Date.now() / 1000 + ahead;

export const timeOfDay = (at) => new Date((at - ahead) * 1000).toLocaleTimeString();

export function since(at) {
  return h("time", { "data-since": at, title: timeOfDay(at) }, duration(now() - at));
}

export function tick(root) {
  for (const time of root.querySelectorAll("time[data-since]")) {
    const text = duration(now() - Number(time.dataset.since));
    if (time.textContent !== text) time.textContent = text;
  }
}

export const plural = (count, one, many = `${one}s`) =>
  `${count.toLocaleString()} ${count === 1 ? one : many}`;
