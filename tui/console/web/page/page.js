"use strict";
// The page around textual-serve's terminal: where its socket is, fonts before the first measure, and keys without a click.

const sizes = { least: 6, most: 60, usual: 16 };

function focusTerminal() {
  const state = document.body.classList;
  if (state.contains("-loaded") && !state.contains("-closed")) document.querySelector(".xterm-helper-textarea").focus();
}

function prepare() {
  const terminal = document.querySelector("#terminal");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  terminal.dataset.sessionWebsocketUrl = `${scheme}//${location.host}${location.pathname}ws`;
  const asked = Number(new URLSearchParams(location.search).get("fontsize")) || sizes.usual;
  terminal.dataset.fontSize = String(Math.min(sizes.most, Math.max(sizes.least, asked)));
}

// textual.js opens a window for a file that is delivered; browsers block windows that no click asked for.
const openWindow = window.open.bind(window);
window.open = (url, ...others) => {
  if (!String(url).startsWith(`${location.origin}/download/`)) return openWindow(url, ...others);
  const link = document.createElement("a");
  link.href = url;
  link.download = "";
  link.click();
  return null;
};

document.addEventListener("DOMContentLoaded", () => {
  prepare();
  const again = document.querySelector("#again");
  again.addEventListener("click", () => location.reload());
  new MutationObserver(() => {
    if (document.body.classList.contains("-closed")) again.focus();
    else focusTerminal();
  }).observe(document.body, { attributeFilter: ["class"] });

  // textual.js begins at window.onload and measures the cells then: the fonts must be there.
  const begin = window.onload;
  window.onload = async (event) => {
    await Promise.all(["16px", "bold 16px", "italic 16px"].map((font) => document.fonts.load(`${font} "Roboto Mono"`)));
    begin(event);
  };
});
window.addEventListener("focus", focusTerminal);
