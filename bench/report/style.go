package report

import (
	"image/color"
	"math"
	"regexp"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The colours that plots are drawn in. In HTML each is replaced by a variable of the style sheet, so that plots follow the
// reader's choice of light or dark.
var (
	ink    = color.NRGBA{0x26, 0x2b, 0x33, 0xff}
	faint  = color.NRGBA{0xd4, 0xd8, 0xde, 0xff}
	series = []color.NRGBA{
		{0x1f, 0x6f, 0xb4, 0xff}, {0xd9, 0x5f, 0x02, 0xff}, {0x1b, 0x8a, 0x5a, 0xff}, {0xc2, 0x2f, 0x6f, 0xff},
		{0x7a, 0x56, 0xb8, 0xff}, {0x8c, 0x6d, 0x1f, 0xff}, {0x0f, 0x8f, 0xa3, 0xff}, {0x6b, 0x72, 0x80, 0xff},
	}
	dashes = [][]vg.Length{nil, {vg.Points(6), vg.Points(3)}, {vg.Points(2), vg.Points(2)}, {vg.Points(8), vg.Points(2), vg.Points(2), vg.Points(2)}}
	glyphs = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{}, draw.CrossGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{}, draw.PlusGlyph{}}
)

const (
	plotWidth  = 15.5 * vg.Centimeter
	plotHeight = 9.5 * vg.Centimeter
	outside    = 88 // points at the right for a legend that would hide the curves
)

// look is the colour, line and mark of the n-th subject.
func look(n int) (color.NRGBA, []vg.Length, draw.GlyphDrawer) {
	return series[n%len(series)], dashes[n/len(series)%len(dashes)], glyphs[(n+n/len(series))%len(glyphs)]
}

// newPlot is an empty plot in our style.
func newPlot() *plot.Plot {
	p := plot.New()
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant = "Sans"
	}
	p.BackgroundColor = color.Transparent
	p.Title.TextStyle.Color, p.Title.TextStyle.Font.Size = ink, vg.Points(10)
	p.Title.Padding = vg.Points(6)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Label.Color, a.Tick.Color = ink, ink, ink, ink
		a.Label.TextStyle.Font.Size, a.Tick.Label.Font.Size = vg.Points(10), vg.Points(9)
		a.Label.Padding = vg.Points(3)
		a.Padding = vg.Points(4)
	}
	p.Legend.TextStyle.Color, p.Legend.TextStyle.Font.Size = ink, vg.Points(9)
	p.Legend.Top = true
	p.Legend.Padding, p.Legend.ThumbnailWidth = vg.Points(1), vg.Points(24)
	return p
}

// grid puts lines behind a plot.
func grid(vertical, horizontal bool) *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = nil, nil
	if vertical {
		g.Vertical = draw.LineStyle{Color: faint, Width: vg.Points(0.5)}
	}
	if horizontal {
		g.Horizontal = draw.LineStyle{Color: faint, Width: vg.Points(0.5)}
	}
	return g
}

// unitTicks labels an axis with quantities of a unit.
type unitTicks struct {
	unit string
	log  bool
}

var zeros = regexp.MustCompile(`(\.\d*?)0+( |/|$)`)

// round takes zeros away after a decimal point, and the point if nothing is left behind it.
func round(s string) string {
	s = zeros.ReplaceAllString(s, "$1$2")
	return strings.NewReplacer(". ", " ", "./", "/").Replace(strings.TrimSuffix(s, "."))
}

// Ticks implements plot.Ticker.
func (t unitTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	if t.log && low > 0 {
		decades := math.Log10(high / low)
		for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
			for _, m := range []float64{1, 2, 3, 4, 5, 6, 7, 8, 9} {
				v := m * math.Pow(10, e)
				if v < low*0.999999 || v > high*1.000001 {
					continue
				}
				label := ""
				switch {
				case m == 1, decades < 1.7 && (m == 2 || m == 5), decades < 0.7:
					label = round(quantity(v, t.unit))
				}
				ticks = append(ticks, plot.Tick{Value: v, Label: label})
			}
		}
		labels := 0
		for _, k := range ticks {
			if k.Label != "" {
				labels++
			}
		}
		if labels >= 2 {
			return ticks
		}
		ticks = nil // too narrow for decades and their parts
	}
	for _, k := range (plot.DefaultTicks{}).Ticks(low, high) {
		if k.Label != "" {
			k.Label = round(quantity(math.Round(k.Value*1e9)/1e9, t.unit))
			if t.unit == "s" && k.Value == 0 {
				k.Label = "0"
			}
		}
		ticks = append(ticks, k)
	}
	return ticks
}

func setAxis(a *plot.Axis, title, unit string, log bool) {
	a.Label.Text = title
	a.Tick.Marker = unitTicks{unit, log}
	if log {
		a.Scale = plot.LogScale{}
	}
}
