package top

import (
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"
)

var (
	plain    = tcell.StyleDefault
	bold     = plain.Bold(true)
	heading  = plain.Reverse(true)
	sorted   = plain.Reverse(true).Bold(true).Underline(true)
	selected = plain.Background(color.Navy).Foreground(color.White).Bold(true)
	quiet    = plain.Dim(true)
	alarm    = plain.Foreground(color.Red).Bold(true)
	group    = plain.Foreground(color.Green).Bold(true)
)

// draw shows the view. The screen may have any size.
func (v *view) draw(screen tcell.Screen) {
	screen.Clear()
	screen.HideCursor()
	width, height := screen.Size()
	put := func(y int, style tcell.Style, text string) {
		if y >= 0 && y < height {
			screen.PutStrStyled(0, y, pad(text, width), style)
		}
	}
	head := v.head(width)
	if height < len(head)+4 { // the rows matter most
		head = head[:max(0, min(len(head), height-4))]
	}
	for i, line := range head {
		style := plain
		switch {
		case i == 0:
			style = bold
		case strings.HasPrefix(line, alarmed):
			style = alarm
		}
		put(i, style, line)
	}
	y := len(head)
	v.height = max(height-y-2, 0)
	v.move(0)
	if v.help {
		for i, line := range help {
			if y+i < height-1 {
				put(y+i, plain, line)
			}
		}
	} else {
		v.table(screen, y, width, put)
	}
	v.foot(screen, height-1, width, put)
	screen.Show()
}

// alarmed begins lines that are to be seen.
const alarmed = "! "

// head is what stands above the table.
func (v *view) head(width int) []string {
	if v.now == nil {
		if v.fault != nil {
			return []string{"uvsadm top", alarmed + v.fault.Error()}
		}
		return []string{"uvsadm top", "asking uvsd"}
	}
	s := v.now.status
	at := v.now.at.Format("15:04:05")
	first := fmt.Sprintf("uvsd %s  up %v  %d services  %d servers  %s connections", s.Version, v.now.at.Sub(s.Started).Round(time.Second),
		s.Services, s.Servers, short(s.Connections))
	if v.paused {
		at = "paused " + at
	}
	lines := []string{first + strings.Repeat(" ", max(2, width-len(first)-len(at))) + at}
	if p, ok := v.frameRates(); ok {
		frames := fmt.Sprintf("frames/s: %s received  %s forwarded  %s answered  %s passed  %s dropped", short(p.Received), short(p.Forwarded),
			short(p.Answered), short(p.Passed), short(p.Dropped))
		if len(s.Drops) > 0 && p.Dropped > 0 {
			frames += ", most so far for " + s.Drops[0].Reason
		}
		lines = append(lines, frames)
	} else {
		lines = append(lines, "frames/s: at the second look")
	}
	switch {
	case v.fault != nil:
		lines = append(lines, alarmed+v.fault.Error())
	case len(s.Warnings) > 0:
		lines = append(lines, fmt.Sprintf("%sthe host check has %d warnings: uvsadm status", alarmed, len(s.Warnings)))
	}
	return lines
}

// table draws the heading and the rows that fit.
func (v *view) table(screen tcell.Screen, y, width int, put func(int, tcell.Style, string)) {
	p, columns := &v.page, v.columns()
	kept, first := fit(columns, width)
	put(y, heading, "")
	x := 0
	for _, i := range kept {
		c := columns[i]
		w, style, title := c.width, heading, c.title
		if i == 0 {
			w = first
		}
		if p.by == i {
			style = sorted
		}
		screen.PutStrStyled(x, y, align(title, w, c.text), style)
		x += w + 1
	}
	if len(p.rows) == 0 {
		put(y+1, quiet, v.empty())
	}
	for n := range v.height {
		i := p.top + n
		if i >= len(p.rows) {
			break
		}
		r := &p.rows[i]
		style := plain
		switch {
		case i == p.cursor:
			style = selected
		case r.warn:
			style = alarm
		case r.dim:
			style = quiet
		case v.of == nil && !r.inner:
			style = group
		}
		put(y+1+n, style, "")
		x := 0
		for _, k := range kept {
			w := columns[k].width
			if k == 0 {
				w = first
			}
			screen.PutStrStyled(x, y+1+n, align(r.cells[k], w, columns[k].text), style)
			x += w + 1
		}
	}
}

// empty says why there are no rows.
func (v *view) empty() string {
	switch {
	case v.now == nil, v.of != nil && !v.got:
		return ""
	case v.page.filter != "":
		return "nothing meets the filter"
	case v.of != nil:
		return "no connections"
	}
	return "no virtual services"
}

// foot draws the last line: the filter while it is typed, a note, or the keys.
func (v *view) foot(screen tcell.Screen, y, width int, put func(int, tcell.Style, string)) {
	filter := v.page.filter
	if v.typing {
		text := "filter: " + filter
		put(y, bold, text)
		screen.ShowCursor(min(len([]rune(text)), width-1), y)
		return
	}
	var text string
	switch {
	case v.note != "":
		text = v.note
	case v.help:
		text = "any key goes back"
	case v.of != nil:
		text = v.of.String() + v.shown() + "  "
		fallthrough
	default:
		if filter != "" {
			text += fmt.Sprintf("[%s] ", filter)
		}
		if v.of != nil {
			text += "q quit  ? help  Esc back  / filter  <> sort  r reverse  p pause"
		} else {
			text += "q quit  ? help  Enter connections  / filter  <> sort  r reverse  c fold  p pause"
		}
	}
	put(y, heading, text)
}

// shown says how many of the connections are shown.
func (v *view) shown() string {
	switch {
	case !v.got:
		return ", asking"
	case v.now.met > len(v.now.conns):
		return fmt.Sprintf(", %d of %d connections", len(v.now.conns), v.now.met)
	}
	return fmt.Sprintf(", %d connections", v.now.met)
}

var help = []string{
	"",
	" up down PgUp PgDn Home End, j k   choose a line",
	" Enter, right                      the connections of the service or the server",
	" Esc, left                         back to the services",
	" / TEXT Enter                      only lines with that text; an empty one for all",
	" < > or S s                        sort by another column; o as the director lists",
	" r                                 in reverse",
	" c                                 services with or without their servers",
	" p                                 pause;  space asks at once;  + - less or more often",
	" Ctrl-L                            draws anew;  Ctrl-Z stops, fg goes on",
	" q, Ctrl-C                         quit",
	"",
	" Rates are those of uvsadm -L --rate. HOW is the scheduler, with P if persistent,",
	" or the forwarding method. Dim lines are quiesced, red ones are at their threshold.",
}

// align brings a text to a width, flush left or right. What is too long ends in a plus sign.
func align(text string, width int, left bool) string {
	r := []rune(text)
	switch {
	case width <= 0:
		return ""
	case len(r) > width:
		return string(r[:width-1]) + "+"
	case left:
		return text + strings.Repeat(" ", width-len(r))
	}
	return strings.Repeat(" ", width-len(r)) + text
}

// pad fills a line to the width of the screen, or cuts it.
func pad(text string, width int) string {
	r := []rune(text)
	if len(r) > width {
		return string(r[:max(width, 0)])
	}
	return text + strings.Repeat(" ", width-len(r))
}
