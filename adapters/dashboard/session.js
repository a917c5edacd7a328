/** Who is signed in, and what that lets them do. */

import { element, fill } from "./element.js";

/** @type {{needs_key: boolean, key: string | null, may_read: boolean, may_write: boolean}} */
let known = { needs_key: false, key: null, may_read: false, may_write: false };

/** Ask the server who we are. */
export async function readSession() {
  const response = await fetch("sign-in");
  if (response.ok) known = await response.json();
  return known;
}

/** Whether actions are shown: a key that may only read sees none. */
export function mayWrite() {
  return known.may_write;
}

/** Whether there is anybody who could sign out. */
export function isSignedIn() {
  return known.needs_key && known.may_read;
}

/** The name of the key that we are signed in with. */
export function keyName() {
  return known.key;
}

/** Sign out, and begin anew. */
export async function signOut() {
  await fetch("sign-out", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: "{}",
  });
  location.reload();
}

/**
 * Show the form that signs in.
 * @param {Element} place
 * @param {() => void} done
 */
export function showSignIn(place, done) {
  const trouble = element("p.trouble", { role: "alert" });
  const key = element("input", {
    id: "key",
    name: "code",
    type: "password",
    autocomplete: "current-password",
    required: true,
  });
  const form = element(
    "form.card.sign-in",
    { method: "post", action: "sign-in" },
    element("h1", {}, "Sign in"),
    element("label", { for: "key" }, "Key"),
    key,
    trouble,
    element("button.primary", { type: "submit" }, "Sign in"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const response = await fetch("sign-in", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ code: key.value }),
    });
    if (response.ok) done();
    else {
      trouble.textContent = (await response.text()).trim();
      key.select();
    }
  });
  fill(place, form);
  key.focus();
}
