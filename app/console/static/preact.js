// The one place that names the vendored file.
export {
  html, render, useState, useEffect, useLayoutEffect, useMemo, useRef, useCallback,
} from "./vendor/htm-preact-3.1.1.js";
