// Mounts each explorer of a page. A notebook cell's output holds, for every explorer, a div that
// names its module and carries its state as JSON; live notebooks mount the same module themselves.
// Nothing here needs a server: readers also open pages as files.

/** What a module expects of a notebook's model: named values, and listeners to their changes. */
function createModel(state) {
  const values = { ...state };
  const listeners = new Map();
  const of = (event) => listeners.get(event) ?? new Set();
  return {
    get: (name) => values[name],
    set(name, value) {
      if (values[name] === value) return;
      values[name] = value;
      of(`change:${name}`).forEach((listener) => listener());
    },
    save_changes() {},
    on: (event, listener) => listeners.set(event, of(event).add(listener)),
    off: (event, listener) => of(event).delete(listener),
  };
}

// Asynchronous, so that trouble with one explorer does not stop the others.
async function mount(place) {
  const data = place.querySelector("script[type='application/json']");
  const explorer = globalThis.batchscalingExplorers?.[place.dataset.module];
  place.replaceChildren(data); // it stays, so that a page that is saved with its explorers opens
  if (explorer) explorer.render({ model: createModel(JSON.parse(data.textContent)), el: place });
  else place.append("The script of this interactive figure could not be loaded.");
}

document.querySelectorAll(".batchscaling-mount").forEach(mount);

// A page that is opened as a file may not read others, where search looks for a summary of each.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
