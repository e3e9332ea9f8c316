// A one-time link carries the token behind `#`, where it reaches no server's log. It is taken out
// of the address before anything else happens.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  const form = document.querySelector("[data-login]");
  form.elements.token.value = given;
  // The reviewer presses the button: nobody is signed in as somebody by a link alone.
  form.querySelector("button").focus();
}
