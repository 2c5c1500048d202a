"use strict";
// What openapi.json says, for people.

for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;

fetch("openapi.json").then((answer) => answer.json()).then(({ paths }) => {
  const groups = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, about] of Object.entries(methods)) {
      const group = about.tags?.[0] ?? "";
      groups.set(group, [...(groups.get(group) ?? []), [method.toUpperCase(), path, about.summary]]);
    }
  }
  for (const [group, endpoints] of groups) {
    const title = document.createElement("h2");
    title.textContent = group;
    document.getElementById("endpoints").append(title, ...endpoints.map(([method, path, summary]) => {
      const entry = document.createElement("div"), name = document.createElement("b"), code = document.createElement("code");
      entry.className = "endpoint";
      name.textContent = method;
      code.textContent = path;
      entry.append(name, code, document.createElement("br"), summary);
      return entry;
    }));
  }
});
