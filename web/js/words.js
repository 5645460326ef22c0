// The words of the views in the language of the editor. English is in the code; locales/<language>/main.json translates.

import { api, app } from "./host.js";

/** @type {Record<string, string>} */
let words = {};

/** Read the words of the editor's language. */
export async function loadWords() {
  const language = String(app.extensionManager.setting.get("Comfy.Locale") ?? "en");
  if (language.startsWith("en")) return;
  const all = await (await api.fetchApi("/i18n")).json();
  words = all[language]?.tesseraViews ?? all[language.split("-")[0]]?.tesseraViews ?? {};
}

/**
 * Say an English text in the language of the editor.
 * @param {string} english
 */
export function say(english) {
  return words[english] ?? english;
}
