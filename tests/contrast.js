// Text against what is behind it, as WCAG 2.1 says for AA: 4.5, of large text 3. Blends what is
// partly transparent; leaves out what is hidden or transparent altogether.
(() => {
  const rgba = text => (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (top, below) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(i => a * top[i] + (1 - a) * below[i]);
  };
  const behind = node => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').trim();
    const style = getComputedStyle(node), svg = node.closest('svg') !== null;
    if (!own || style.visibility === 'hidden' || !node.getClientRects().length || node.tagName === 'title') continue;
    const colour = rgba(svg ? style.fill : style.color);
    if (colour.length > 3 && colour[3] === 0) continue;
    const back = behind(node), text = over(colour, back);
    const [low, high] = [light(text), light(back)].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < (large ? 3 : 4.5)) found.push(`${node.tagName} ${own.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()
