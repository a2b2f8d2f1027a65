// Playing a piece along its roll, and the keyboard on the map. Asking the server is gradio's (see `page.py`).
(() => {
  const sound = new Audio();
  let player = null; // the .pb-player that sounds
  let source = null; // what it played then: gradio may give the element to another piece
  let address = null; // of the sound in `sound`, an object URL
  let asked = 0; // counts requests, so that a late answer does not stop what was asked for after it

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const seconds = (element) => Number(element.dataset.seconds) || 1;
  const gone = () => !player.isConnected || player.dataset.audio !== source;

  function draw() {
    if (!player) return;
    if (gone()) return stop();
    const roll = player.querySelector(".pb-roll");
    const head = player.querySelector(".pb-head");
    head.hidden = false;
    head.style.left = `${clamp((100 * sound.currentTime) / seconds(player), 0, 100)}%`;
    roll.setAttribute("aria-valuenow", Math.round(sound.currentTime));
    const page = player.querySelector(".pb-page");
    if (page) follow(page, sound.currentTime + Number(player.dataset.start));
    if (!sound.paused) requestAnimationFrame(draw);
  }

  // The bar of a score that sounds at a second of the piece, and how far it is through.
  function follow(page, at) {
    const bars = page.dataset.times.split(";").map((bar) => bar.split(",").map(Number));
    const head = page.querySelector(".playhead");
    const number = bars.findLastIndex(([start]) => start <= at);
    head.setAttribute("visibility", number < 0 ? "hidden" : "visible");
    if (number < 0) return;
    const [start, left, top, width, height] = bars[number];
    const next = number + 1 < bars.length ? bars[number + 1][0] : start + 2;
    const share = clamp((at - start) / Math.max(next - start, 0.01), 0, 1);
    for (const [name, value] of Object.entries({ x: left + share * width, y: top, width: 3, height })) {
      head.setAttribute(name, value);
    }
  }

  async function showScore(button) {
    button.disabled = true;
    const said = button.closest(".pb-player").querySelector(".pb-said");
    const answer = await fetch(button.dataset.page);
    if (!answer.ok) {
      said.textContent = await answer.text();
      button.disabled = false;
      return;
    }
    button.insertAdjacentHTML("afterend", await answer.text());
    button.remove();
  }

  // The page has the corpus by sound and by mood, and shows one; the choice outlasts the maps, which each search redraws.
  function showMap(kind) {
    document.body.classList.toggle("pb-moody", kind === "mood");
    document.querySelector(`.pb-by-${kind} [data-map="${kind}"]`).focus();
  }

  function mark(state) {
    if (!player) return;
    player.dataset.state = state;
    const button = player.querySelector(".pb-play");
    const verb = state === "playing" ? "Pause" : "Play";
    button.setAttribute("aria-label", button.getAttribute("aria-label").replace(/^(Play|Pause)/, verb));
  }

  function stop() {
    asked += 1;
    sound.pause();
    mark("paused");
    player.querySelector(".pb-head").hidden = true;
    player = null;
  }

  async function load(wanted) {
    const request = ++asked;
    sound.pause();
    mark("paused");
    player = wanted;
    source = player.dataset.audio;
    mark("loading");
    const said = player.querySelector(".pb-said");
    said.textContent = "";
    try {
      const answer = await fetch(source);
      if (!answer.ok) throw new Error(await answer.text());
      const content = await answer.blob();
      if (request !== asked) return false;
      if (address) URL.revokeObjectURL(address);
      address = URL.createObjectURL(content);
      sound.src = address;
      player.dataset.loaded = "yes";
      return true;
    } catch (error) {
      if (request === asked) {
        said.textContent = error.message || "The sound could not be loaded.";
        mark("paused");
        player = null;
      }
      return false;
    }
  }

  async function play(wanted, at) {
    if (wanted !== player && !(await load(wanted))) return;
    if (at !== undefined) sound.currentTime = clamp(at, 0, seconds(wanted) - 0.05);
    await sound.play();
    mark("playing");
    draw();
  }

  sound.addEventListener("ended", () => mark("paused"));
  sound.addEventListener("pause", () => mark("paused"));

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".pb-play");
    const roll = event.target.closest(".pb-roll, .pb-moods");
    const score = event.target.closest(".pb-score-button");
    const map = event.target.closest("[data-map]");
    if (map) {
      showMap(map.dataset.map);
    } else if (score) {
      showScore(score);
    } else if (button) {
      const wanted = button.closest(".pb-player");
      if (wanted !== player) play(wanted, Number(wanted.dataset.cue));
      else if (sound.paused) play(wanted, sound.ended ? 0 : undefined);
      else sound.pause();
    } else if (roll) {
      const box = roll.getBoundingClientRect();
      const wanted = roll.closest(".pb-player");
      play(wanted, ((event.clientX - box.left) / box.width) * seconds(wanted));
    }
  });

  document.addEventListener("keydown", (event) => {
    const roll = event.target.closest?.(".pb-roll");
    const point = event.target.closest?.(".pb-point");
    if (roll) {
      const wanted = roll.closest(".pb-player");
      const now = wanted === player ? sound.currentTime : Number(wanted.dataset.cue);
      const to = { ArrowLeft: now - 5, ArrowRight: now + 5, Home: 0, End: seconds(wanted) - 5 }[event.key];
      if (event.key === "Enter" || event.key === " ") wanted.querySelector(".pb-play").click();
      else if (to !== undefined) play(wanted, to);
      else return;
      event.preventDefault();
    } else if (point) {
      if (event.key === "Enter" || event.key === " ") {
        point.dispatchEvent(new MouseEvent("click", { bubbles: true }));
      } else {
        const next = neighbour(point, event.key);
        if (!next) return;
        reach(next);
        next.focus();
      }
      event.preventDefault();
    }
  });

  // gradio says when an answer is on its way, and when it has come; see `page.py`.
  window.pianobind = { waiting: (on) => void document.body.classList.toggle("pb-waiting", on) };

  // The point that lies nearest in the direction of an arrow key; what lies aside counts as twice as far.
  function neighbour(from, key) {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (!direction) return null;
    const place = (point) => {
      const circle = point.querySelector("circle");
      return [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))];
    };
    const [x, y] = place(from);
    let best = null;
    let least = Infinity;
    for (const point of from.closest("svg").querySelectorAll(".pb-point")) {
      const [dx, dy] = [place(point)[0] - x, place(point)[1] - y];
      const ahead = dx * direction[0] + dy * direction[1];
      const far = ahead + 2 * Math.abs(dx * direction[1] + dy * direction[0]);
      if (ahead > 0 && far < least) [best, least] = [point, far];
    }
    return best;
  }

  // One point of the map is in the tab order at a time.
  function reach(point) {
    for (const other of point.closest("svg").querySelectorAll('.pb-point[tabindex="0"]')) other.tabIndex = -1;
    point.setAttribute("tabindex", "0");
  }

  new MutationObserver(() => {
    for (const map of document.querySelectorAll(".pb-map svg")) {
      if (!map.querySelector('.pb-point[tabindex="0"]')) {
        const point = map.querySelector(".pb-shown") || map.querySelector(".pb-point:last-of-type");
        if (point) reach(point);
      }
    }
    if (player && gone()) stop();
  }).observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ["data-audio"] });

  // A card and its point on the map light up together.
  for (const [event, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
    document.addEventListener(event, ({ target }) => {
      const key = target.closest?.(".pb-card, .pb-point")?.dataset.key;
      if (!key) return;
      for (const one of document.querySelectorAll(".pb-card, .pb-point")) {
        if (one.dataset.key === key) one.classList.toggle("pb-lit", on);
      }
    });
  }
})();
