// Starts Swagger UI, and lets what it sends go on with the session of this browser.
"use strict";

const SAFE_METHODS = ["GET", "HEAD", "OPTIONS"];

function cookie(name) {
  const found = document.cookie.split("; ").find((one) => one.startsWith(`${name}=`));
  return found === undefined ? undefined : decodeURIComponent(found.slice(name.length + 1));
}

// The tokens themselves are in cookies that no script reads; what changes something must also carry the session's CSRF token.
function withSession(request) {
  const token = cookie("hse_csrf");
  const hasProof = Object.keys(request.headers).some((name) => /^(authorization|x-api-key)$/i.test(name));
  if (token !== undefined && !hasProof && !SAFE_METHODS.includes((request.method ?? "GET").toUpperCase())) {
    request.headers["X-CSRF-Token"] = token;
  }
  return request;
}

SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  displayRequestDuration: true,
  syntaxHighlight: { activated: false },
  requestInterceptor: withSession,
  // Else it would show the document to a validator on another host.
  validatorUrl: null,
});
