// Conversations live here, in the browser's storage: one entry each, so that two tabs never overwrite one another's.
(() => {
  const page = window.swiftlite;
  if (page.save) return;
  const { words } = page;
  const CHAT = 'swiftlite.chat.';
  const LINE = '<div class="line idle" data-state="idle"></div>';
  for (const [name, value] of [['language', page.lang], ['languages', [page.lang]]]) {
    Object.defineProperty(navigator, name, { get: () => value, configurable: true }); // Gradio's own words follow
  }
  document.documentElement.lang = page.lang;
  // Gradio's highlighter fails on a language that extends one it never loaded (C++ on C), and the message stays blank
  Object.defineProperty(window, 'Prism', {
    configurable: true,
    set: (prism) => {
      Object.defineProperty(window, 'Prism', { value: prism, writable: true, configurable: true });
      const languages = prism.languages;
      const extend = languages.extend;
      languages.extend = (base, change) => extend.call(languages, languages[base] ? base : 'clike', change);
    },
  });

  const find = (selector) => document.querySelector(selector);
  const read = (store, key) => {
    try {
      return JSON.parse(store.getItem(key));
    } catch {
      return null;
    }
  };
  const write = (store, key, value) => {
    try {
      if (value === null) store.removeItem(key);
      else store.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  };
  // where the browser forbids storage, the page works on and only forgets
  const storage = (name) => {
    try {
      return window[name];
    } catch {
      const kept = Object.create({
        getItem: (key) => kept[key] ?? null,
        setItem: (key, value) => (kept[key] = value),
        removeItem: (key) => delete kept[key],
      });
      return kept;
    }
  };
  const localStorage = storage('localStorage');
  const sessionStorage = storage('sessionStorage');
  const newId = () => Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
  const text = (message) =>
    typeof message.content === 'string' ? message.content : message.content.map((part) => part.text ?? '').join('');

  let current = read(sessionStorage, 'swiftlite.current') ?? newId();
  let model = null;
  let pending = null;
  let timer = 0;
  let full = false;

  const chat = (id) => read(localStorage, CHAT + id);
  const chats = () =>
    Object.keys(localStorage)
      .filter((key) => key.startsWith(CHAT))
      .map((key) => ({ id: key.slice(CHAT.length), ...read(localStorage, key) }))
      .filter((one) => Array.isArray(one.messages))
      .sort((a, b) => b.updated - a.updated);

  function flush() {
    clearTimeout(timer);
    timer = 0;
    if (!pending) return;
    const { id, messages, model, system } = pending;
    pending = null;
    const old = chat(id);
    if (!messages.length && !old) return;
    const same = old && JSON.stringify(old.messages) === JSON.stringify(messages);
    if (same && old.model === model && old.system === system) return;
    const first = messages.find((message) => message.role === 'user');
    const title = old?.named ? old.title : first ? text(first).trim().slice(0, 60) : (old?.title ?? words.new_chat);
    const updated = same ? old.updated : Date.now();
    full = !write(localStorage, CHAT + id, { title, named: old?.named ?? false, messages, model, system, updated });
    list();
  }

  function use(id) {
    current = id;
    write(sessionStorage, 'swiftlite.current', id);
  }

  // Between the choice of a conversation and its showing, the chat still tells of the one before: not to be saved.
  const PATIENCE = 3000;
  let shown = '[]';
  let awaited = { wanted: null, until: Infinity }; // nothing is saved before the page has begun
  const gist = (messages) => JSON.stringify(messages.map((message) => [message.role, text(message)]));
  function expect(messages) {
    const wanted = gist(messages);
    awaited = wanted === shown ? null : { wanted, until: Date.now() + PATIENCE };
  }

  page.save = (messages, chosen, system) => {
    shown = gist(messages ?? []);
    if (awaited && shown !== awaited.wanted && Date.now() < awaited.until) return [];
    awaited = null;
    model = chosen;
    pending = { id: current, messages: messages ?? [], model: chosen, system: system ?? '' };
    if (!timer) timer = setTimeout(flush, 250);
    return [];
  };
  page.draft = (typed) => {
    write(sessionStorage, 'swiftlite.draft.' + current, typed || null);
    return [];
  };
  page.opened = () => {
    const kept = chat(current);
    const known = [kept?.model, model].find((name) => page.models.includes(name)) ?? page.models[0];
    model = known;
    expect(kept?.messages ?? []);
    list();
    return [kept?.messages ?? [], known, kept?.system ?? '', read(sessionStorage, 'swiftlite.draft.' + current) ?? '', LINE];
  };
  page.adjusted = (...values) => {
    write(sessionStorage, 'swiftlite.values', { of: page.defaults, values });
    return [];
  };
  page.values = () => {
    const kept = read(sessionStorage, 'swiftlite.values');
    return kept && JSON.stringify(kept.of) === JSON.stringify(page.defaults) ? kept.values : page.defaults;
  };
  page.start = () => {
    use(current);
    begin();
    return [...page.opened(), ...page.values()];
  };
  // a base model's page keeps its one text
  page.text = (written) => {
    write(sessionStorage, 'swiftlite.text', written || null);
    return [];
  };
  page.startText = () => {
    begin();
    return [read(sessionStorage, 'swiftlite.text') ?? '', ...page.values()];
  };

  const running = () => find('#status [data-state]')?.dataset.state === 'running';

  async function ended() {
    if (!running()) return;
    find('#stop')?.click();
    for (let waited = 0; running() && waited < 5000; waited += 50) await new Promise((go) => setTimeout(go, 50));
    await new Promise((go) => setTimeout(go, 60)); // the last words reach the chat after the status
  }

  async function open(id) {
    await ended();
    flush();
    use(id);
    find('#opened').click();
    document.body.classList.remove('menu');
    find('#box textarea')?.focus();
  }

  function list() {
    const place = find('#chats');
    if (!place || place.tagName !== 'NAV') return;
    if (place.querySelector('input')) return; // a name is being typed
    const rows = chats().map(row);
    if (!rows.length || full) {
      const note = document.createElement('p');
      note.className = 'note';
      note.textContent = full ? words.full : words.no_chats;
      rows.unshift(note);
    }
    place.replaceChildren(...rows);
  }

  function button(className, label, content, action) {
    const made = document.createElement('button');
    made.type = 'button';
    made.className = className;
    made.title = label;
    made.setAttribute('aria-label', label);
    made.append(content);
    made.addEventListener('click', action);
    return made;
  }

  const PEN = 'M4 20l1-4L16 5l3 3L8 19z';
  const BIN = 'M5 7h14M10 7V5h4v2M7 7l1 13h8l1-13';
  function icon(path) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    line.setAttribute('d', path);
    svg.setAttribute('viewBox', '0 0 24 24');
    svg.append(line);
    return svg;
  }

  function row(one) {
    const place = document.createElement('div');
    place.className = 'row';
    const name = button('open', one.title, one.title, () => open(one.id));
    if (one.id === current) name.setAttribute('aria-current', 'true');
    const rename = button('icon', words.rename, icon(PEN), () => renaming(place, one));
    const remove = button('icon', words.delete, icon(BIN), () => {
      if (!remove.classList.contains('sure')) {
        remove.classList.add('sure');
        remove.replaceChildren(words.sure);
        remove.addEventListener('blur', list, { once: true });
        return;
      }
      write(localStorage, CHAT + one.id, null);
      if (one.id === current) {
        pending = null;
        forget();
      } else list();
    });
    place.append(name, rename, remove);
    return place;
  }

  async function forget() {
    await ended();
    clearTimeout(timer);
    timer = 0;
    pending = null;
    write(localStorage, CHAT + current, null);
    use(newId());
    find('#opened').click();
    list();
  }

  function renaming(place, one) {
    const field = document.createElement('input');
    field.value = one.title;
    field.setAttribute('aria-label', words.rename);
    let over = false;
    const finish = (keep) => {
      if (over) return;
      over = true;
      const title = field.value.trim();
      const kept = chat(one.id);
      field.remove();
      if (keep && title && kept) write(localStorage, CHAT + one.id, { ...kept, title, named: true });
      list();
    };
    field.addEventListener('keydown', (event) => {
      if (event.isComposing) return;
      if (event.key === 'Enter') finish(true);
      if (event.key === 'Escape') finish(false);
      event.stopPropagation();
    });
    field.addEventListener('blur', () => finish(true));
    place.replaceChildren(field);
    field.focus();
    field.select();
  }

  const actions = {
    new: () => open(newId()),
    menu: () => toggle('menu'),
    panel: () => toggle('panel'),
    theme: () => {
      const dark = document.body.classList.toggle('dark');
      write(localStorage, 'swiftlite.dark', dark);
    },
    lang: (place) => {
      flush();
      document.cookie = `swiftlite-lang=${place.dataset.lang}; path=/; max-age=31536000; samesite=lax`;
      location.href = `../${place.dataset.lang}/${location.search}`;
    },
  };
  function toggle(name) {
    const shown = document.body.classList.toggle(name);
    document.body.classList.remove(name === 'menu' ? 'panel' : 'menu');
    if (shown && innerWidth <= 900) find(name === 'menu' ? '#side button' : '#panel button')?.focus();
  }

  function begin() {
    const dark = read(localStorage, 'swiftlite.dark');
    if (dark !== null) document.body.classList.toggle('dark', dark);
    list();
  }

  document.addEventListener('click', (event) => {
    const place = event.target.closest?.('[data-do]');
    if (place) actions[place.dataset.do](place);
    else if (innerWidth <= 900 && !event.target.closest('#side, #panel')) document.body.classList.remove('menu', 'panel');
  });
  document.addEventListener(
    'keydown',
    (event) => {
      if (event.key === 'Enter' && (event.isComposing || event.keyCode === 229)) event.stopPropagation();
      if (event.key !== 'Escape' || event.isComposing) return;
      if (running()) find('#stop')?.click();
      else document.body.classList.remove('menu', 'panel');
    },
    true,
  );
  // Enter that ends a composition of Chinese characters sends nothing
  document.addEventListener('keypress', (event) => event.isComposing && event.stopPropagation(), true);
  // what is typed is kept at once, not when Gradio has heard of it
  document.addEventListener('input', (event) => {
    if (event.target.matches('#box textarea')) page.draft(event.target.value);
    if (event.target.matches('#text textarea')) page.text(event.target.value);
  });
  addEventListener('pagehide', flush);
  addEventListener('storage', (event) => event.key?.startsWith(CHAT) && list());
})();
