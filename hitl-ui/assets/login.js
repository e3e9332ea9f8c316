// A one-time link carries the token behind `#`, where it reaches no server's log. It is taken out
// of the address before anything else happens.
// (Not as a form's fields are read: a plus in a token is a plus.)
const given = /^#token=(.+)$/.exec(location.hash)?.[1];
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  const form = document.querySelector("[data-login]");
  form.elements.token.value = decodeURIComponent(given);
  // The reviewer presses the button: nobody is signed in as somebody by a link alone.
  form.querySelector("button").focus();
}
