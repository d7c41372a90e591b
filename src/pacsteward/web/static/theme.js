// Before anything is drawn: the reader's choice of light or dark, if one was made.
(function () {
  "use strict";
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") {
      document.documentElement.dataset.theme = chosen;
    }
  } catch {
    // Storage may be switched off; then the system's choice holds.
  }
})();
