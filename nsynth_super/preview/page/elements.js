// Helpers for the page's elements.

export const $ = (id) => document.getElementById(id);

export function make(kind, properties = {}, ...children) {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  return element;
}

// Return a function that runs `action` once, `wait` milliseconds after its last call.
export function debounce(wait, action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}

// Show a message at the top of the page; an empty one hides it.
export function tell(words, ...more) {
  $("message").replaceChildren(words, ...more);
  $("message").hidden = !words;
}
