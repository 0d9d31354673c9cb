// Mounts each explorer of a page. A notebook cell's output holds, for every explorer, a div that
// names its module and carries its state as JSON; live notebooks mount the same module themselves.

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

async function mount(place) {
  const state = JSON.parse(place.querySelector("script[type='application/json']").textContent);
  const { default: explorer } = await import(new URL(place.dataset.module, import.meta.url));
  place.replaceChildren();
  explorer.render({ model: createModel(state), el: place });
}

document.querySelectorAll(".batchscaling-mount").forEach(mount);
