// Keeps fields that were left empty out of the URL, so that the link of a view says only what it shows.
for (const form of document.querySelectorAll("form.view, form.question")) {
  form.addEventListener("submit", () => {
    const empty = [...form.elements].filter((each) => each.name && each.value === "");
    for (const each of form.querySelectorAll('[name$="].field"]')) {
      const term = each.name.slice(0, each.name.lastIndexOf(".") + 1);
      if (each.value === "") empty.push(...[...form.elements].filter((other) => other.name.startsWith(term)));
    }
    for (const each of empty) each.disabled = true;
    // The page may come back from the browser's history, with the same fields.
    setTimeout(() => empty.forEach((each) => (each.disabled = false)));
  });
}
