package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"uvs/bench/result"
)

// figurePlot is a drawing with its caption.
type figurePlot struct {
	name    string // of its files
	caption string
	plot    *plot.Plot
	w, h    vg.Length
}

// plotsOf are the drawings of a scenario.
func plotsOf(f *result.File, s *result.Scenario) ([]figurePlot, error) {
	var all []figurePlot
	add := func(p figurePlot, err error) error {
		if err == nil && p.plot != nil {
			all = append(all, p)
		}
		return err
	}
	if s.Axis != "" {
		if err := add(axisPlot(f, s)); err != nil {
			return nil, err
		}
	} else if err := add(comparison(f, s)); err != nil {
		return nil, err
	}
	var names []string
	for _, c := range s.Curves {
		if !slices.Contains(names, c.Plot) {
			names = append(names, c.Plot)
		}
	}
	for i, name := range names {
		p, err := curvePlot(s, name)
		p.name = fmt.Sprintf("curve%d", i+1)
		if err := add(p, err); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// quantiles are the figures that comparison draws together where a result has them.
var quantiles = []string{"p50", "p95", "p99", "p999"}

// comparison draws the subjects one below the other, the best at the top: several quantiles where there are any, else the main
// figure with its interval.
func comparison(f *result.File, s *result.Scenario) (figurePlot, error) {
	all := rank(f, s)
	if len(all) < 2 {
		return figurePlot{}, nil
	}
	main := mainFigure(f, s)
	figures := []result.Figure{main}
	if slices.Contains(quantiles, main.Name) {
		figures = nil
		for _, q := range quantiles {
			if fig, ok := f.Figure(q); ok && all[0].row.Values[q].N > 0 {
				figures = append(figures, fig)
			}
		}
	}
	p := newPlot()
	var names []string
	low, high := math.Inf(1), 0.0
	for i := range all {
		x := all[len(all)-1-i]
		names = append(names, x.subject)
		for _, fig := range figures {
			if v, ok := x.row.Values[fig.Name]; ok {
				low, high = min(low, v.Value), max(high, v.High, v.Value)
			}
		}
	}
	log := low > 0 && high/low > 8
	setAxis(&p.X, main.Title, main.Unit, log)
	if len(figures) > 1 {
		if _, what, ok := strings.Cut(main.Title, " of the "); ok {
			p.X.Label.Text = what // the response time, the latency
		}
	}
	p.Add(grid(true, true))
	for k, fig := range figures {
		col, _, glyph := look(k)
		var points plotter.XYs
		for i := range all {
			v, ok := all[len(all)-1-i].row.Values[fig.Name]
			if !ok || log && v.Value <= 0 {
				continue
			}
			y := float64(i)
			points = append(points, plotter.XY{X: v.Value, Y: y})
			lowEnd := v.Low
			if log {
				lowEnd = max(lowEnd, v.Value/100)
			}
			if v.N > 1 {
				l, err := plotter.NewLine(plotter.XYs{{X: lowEnd, Y: y}, {X: v.High, Y: y}})
				if err != nil {
					return figurePlot{}, err
				}
				l.Color, l.Width = col, vg.Points(1.5)
				p.Add(l)
			}
		}
		if len(points) == 0 {
			continue
		}
		sc, err := plotter.NewScatter(points)
		if err != nil {
			return figurePlot{}, err
		}
		sc.GlyphStyle = draw.GlyphStyle{Color: col, Shape: glyph, Radius: vg.Points(3.2)}
		p.Add(sc)
		if len(figures) > 1 {
			p.Legend.Add(map[string]string{"p50": "median", "p95": "95 %", "p99": "99 %", "p999": "99.9 %"}[fig.Name], sc)
		}
	}
	p.NominalY(names...)
	p.Y.Tick.Label.XAlign = draw.XRight
	p.Y.Min, p.Y.Max = -0.6, float64(len(names))-0.4
	if len(figures) > 1 {
		p.Y.Max += 1.6 // for the legend
		p.Legend.Left = false
	}
	if !log {
		p.X.Min = 0
	}
	caption := "The best by the " + main.Title + " at the top; a line is the 95 % confidence interval, where it is wider than the mark."
	switch v := all[0].value; {
	case v.N == 1:
		caption = "The best by the " + main.Title + " at the top."
	case v.Spread:
		caption = "The best at the top; marks are medians of the runs, lines go from the lowest to the highest."
	}
	h := vg.Length(float64(len(names))*0.56+2.2) * vg.Centimeter
	return figurePlot{"comparison", caption, p, plotWidth, max(h, 5*vg.Centimeter)}, nil
}

// axisPlot draws the main figure of every subject over the axis, and published values beside it.
func axisPlot(f *result.File, s *result.Scenario) (figurePlot, error) {
	main := mainFigure(f, s)
	p := newPlot()
	setAxis(&p.X, s.Axis, s.Unit, s.LogX)
	setAxis(&p.Y, "", main.Unit, s.LogY)
	p.Title.Text = capital(main.Title) // above the axis, where it needs no turning of heads
	p.Add(grid(true, true))
	for n, subject := range s.Subjects() {
		col, dash, glyph := look(n)
		var line plotter.XYs
		for _, r := range s.Rows {
			v, ok := r.Values[main.Name]
			if r.Subject != subject || r.X == nil || !ok || s.LogY && v.Value <= 0 {
				continue
			}
			line = append(line, plotter.XY{X: *r.X, Y: v.Value})
			if v.N > 1 && !(s.LogY && v.Low <= 0) {
				bar, err := plotter.NewLine(plotter.XYs{{X: *r.X, Y: v.Low}, {X: *r.X, Y: v.High}})
				if err != nil {
					return figurePlot{}, err
				}
				bar.Color, bar.Width = col, vg.Points(1)
				p.Add(bar)
			}
		}
		if len(line) == 0 {
			continue
		}
		l, sc, err := plotter.NewLinePoints(line)
		if err != nil {
			return figurePlot{}, err
		}
		l.Color, l.Width, l.Dashes = col, vg.Points(1.4), dash
		sc.GlyphStyle = draw.GlyphStyle{Color: col, Shape: glyph, Radius: vg.Points(2.6)}
		p.Add(l, sc)
		p.Legend.Add(subject, l, sc)
	}
	for k, c := range s.Reference {
		points := make(plotter.XYs, len(c.X))
		for i := range c.X {
			points[i] = plotter.XY{X: c.X[i], Y: c.Y[i]}
		}
		sc, err := plotter.NewScatter(points)
		if err != nil {
			return figurePlot{}, err
		}
		sc.GlyphStyle = draw.GlyphStyle{Color: ink, Shape: []draw.GlyphDrawer{draw.CrossGlyph{}, draw.PlusGlyph{}, draw.RingGlyph{}}[k%3], Radius: vg.Points(4)}
		p.Add(sc)
		p.Legend.Add(c.Subject, sc)
	}
	if !s.LogY {
		p.Y.Min = 0
	}
	if p.Legend.Left = true; len(s.Subjects())+len(s.Reference) > 5 {
		p.Legend.Left, p.Legend.XOffs = false, outside
	}
	caption := fmt.Sprintf("%s by %s; vertical lines are 95 %% confidence intervals.", capital(main.Title), s.Axis)
	return figurePlot{"series", caption, p, plotWidth, plotHeight}, nil
}

// curvePlot draws the curves of one name.
func curvePlot(s *result.Scenario, name string) (figurePlot, error) {
	p := newPlot()
	p.Add(grid(true, true))
	subjects := s.Subjects()
	for _, c := range s.Curves {
		if c.Plot != name {
			continue
		}
		setAxis(&p.X, c.XTitle, c.XUnit, c.LogX)
		setAxis(&p.Y, "", c.YUnit, c.LogY)
		p.Title.Text = capital(c.YTitle)
		col, dash, _ := look(max(slices.Index(subjects, c.Subject), 0))
		var points plotter.XYs
		for i := range c.X {
			if c.LogX && c.X[i] <= 0 || c.LogY && c.Y[i] <= 0 {
				continue
			}
			points = append(points, plotter.XY{X: c.X[i], Y: c.Y[i]})
		}
		if len(points) == 0 {
			continue
		}
		l, err := plotter.NewLine(points)
		if err != nil {
			return figurePlot{}, err
		}
		l.Color, l.Width, l.Dashes = col, vg.Points(1.3), dash
		p.Add(l)
		if len(subjects) > 1 {
			p.Legend.Add(c.Subject, l)
		}
	}
	p.Legend.XOffs = vg.Points(-2)
	if len(subjects) > 5 { // it would hide the curves: it gets a place of its own at the right
		p.Legend.XOffs = outside
	}
	return figurePlot{"curve", capital(name) + ".", p, plotWidth, plotHeight}, nil
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// draw draws onto a canvas, with room at the right for a legend that lies outside.
func (p *figurePlot) draw(c draw.Canvas) {
	if x := p.plot.Legend.XOffs; x > 0 {
		c = draw.Crop(c, 0, -x-vg.Points(4), 0, 0)
	}
	p.plot.Draw(c)
}

// svg is the drawing as it stands in HTML: without a prologue, its colours as variables of the style sheet.
func (p *figurePlot) svg() (string, error) {
	text, err := p.rawSVG()
	if err != nil {
		return "", err
	}
	s := string(text)
	if i := strings.Index(s, "<svg"); i > 0 {
		s = s[i:]
	}
	hex := func(c color.NRGBA) string { return fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B) }
	pairs := []string{hex(ink), "var(--ink)", hex(faint), "var(--line)"}
	for i, c := range series {
		pairs = append(pairs, hex(c), fmt.Sprintf("var(--s%d)", i))
	}
	s = strings.NewReplacer(pairs...).Replace(s)
	s = fontFamily.ReplaceAllString(s, "font-family:'Liberation Sans',Arial,Helvetica,sans-serif") // all as wide as measured
	return s, nil
}

var fontFamily = regexp.MustCompile(`font-family:[^;"]*`)

func (p *figurePlot) rawSVG() ([]byte, error) {
	c := vgsvg.New(p.w, p.h)
	p.draw(draw.New(c))
	var b bytes.Buffer
	_, err := c.WriteTo(&b)
	return b.Bytes(), err
}

// png is the drawing on white, with twice the usual resolution.
func (p *figurePlot) png() ([]byte, error) {
	c := vgimg.NewWith(vgimg.UseWH(p.w, p.h), vgimg.UseDPI(192), vgimg.UseBackgroundColor(color.White))
	p.draw(draw.New(c))
	var b bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(&b)
	return b.Bytes(), err
}

// WritePlots writes every plot of the results into a directory, as SVG and as PNG.
func WritePlots(dir string, files []*result.File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for n, f := range files {
		for i := range f.Scenarios {
			s := &f.Scenarios[i]
			plots, err := plotsOf(f, s)
			if err != nil {
				return fmt.Errorf("plots of %s: %w", s.Name, err)
			}
			for _, p := range plots {
				name := fmt.Sprintf("%s-%s", fileName(s.Name), p.name)
				if len(files) > 1 {
					name = fmt.Sprintf("%d-%s", n+1, name)
				}
				svg, err1 := p.rawSVG()
				png, err2 := p.png()
				err := errors.Join(err1, err2,
					os.WriteFile(filepath.Join(dir, name+".svg"), svg, 0o644), os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fileName is a name without what file names don't have.
func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, s)
}
