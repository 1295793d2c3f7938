package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
	"strings"
	"time"

	"uvs/bench/result"
)

//go:embed report.html
var pageText string

var page = template.Must(template.New("report").Parse(pageText))

// The view of a report, as the template has it.
type (
	pageView struct {
		Title string
		Files []fileView
		Toc   bool
	}
	fileView struct {
		ID, Title, Kind, Machine, Command string
		About                             []string
		When, Took                        string
		Partial                           bool
		Notes                             []string
		Choice                            *choiceView
		Scenarios                         []scenarioView
		Figures                           []figureView
		Natures                           []nature
	}
	figureView   struct{ Name, Title, About string }
	scenarioView struct {
		ID, Title string
		About     []string
		Summary   []string
		Plots     []plotView
		Tables    []tableView
	}
	plotView struct {
		SVG     template.HTML
		Caption string
	}
	tableView struct {
		Caption string
		Head    []headView
		Rows    [][]cellView
		Open    bool
	}
	headView struct{ Text, Title string }
	cellView struct {
		Text, Small string
		Class       string // how good it is: "g0" the best to "g4"
		Name        bool
	}
	// choiceView is the table at the top: subjects by scenarios.
	choiceView struct {
		Figure string
		Head   []headView
		Rows   [][]cellView
	}
)

// WriteHTML writes one self-contained HTML file about all results.
func WriteHTML(name string, files []*result.File) error {
	text, err := HTML(files)
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// HTML is one self-contained document about all results.
func HTML(files []*result.File) ([]byte, error) {
	v := pageView{Title: "uvsbench report"}
	if len(files) == 1 {
		v.Title = files[0].Title
	}
	sections := 0
	for i, f := range files {
		fv, err := viewFile(f, fmt.Sprintf("f%d", i+1))
		if err != nil {
			return nil, err
		}
		sections += len(fv.Scenarios)
		v.Files = append(v.Files, *fv)
	}
	v.Toc = sections > 2
	var b bytes.Buffer
	if err := page.Execute(&b, &v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

var kindTitles = map[string]string{
	result.Sim: "simulated in virtual time", result.Lab: "measured on real servers in the lab", result.Wire: "directors side by side, measured in the lab",
	result.Load: "measured by the load generator", result.Replay: "recorded traffic, offered to schedulers", result.Shadow: "a director's own traffic, offered to schedulers",
}

func viewFile(f *result.File, id string) (*fileView, error) {
	v := &fileView{ID: id, Title: f.Title, Kind: kindTitles[f.Kind], Machine: f.Machine, Command: f.Command, About: paragraphs(f.About),
		When: f.Started.Format("2 January 2006, 15:04"), Took: time.Duration(f.Took * float64(time.Second)).Round(100 * time.Millisecond).String(),
		Partial: f.Partial, Notes: f.Notes, Choice: choose(f), Natures: naturesOf(f)}
	for _, fig := range f.Figures {
		v.Figures = append(v.Figures, figureView{fig.Name, fig.Title, fig.About})
	}
	for i := range f.Scenarios {
		s := &f.Scenarios[i]
		if len(s.Rows) == 0 {
			continue
		}
		sv := scenarioView{ID: fmt.Sprintf("%s-%s", id, fileName(s.Name)), Title: s.Title, About: paragraphs(s.About), Summary: explain(f, s)}
		plots, err := plotsOf(f, s)
		if err != nil {
			return nil, fmt.Errorf("plots of %s: %w", s.Name, err)
		}
		for _, p := range plots {
			svg, err := p.svg()
			if err != nil {
				return nil, err
			}
			sv.Plots = append(sv.Plots, plotView{template.HTML(svg), p.caption})
		}
		sv.Tables = append(sv.Tables, figureTable(f, s))
		sv.Tables = append(sv.Tables, partTables(f, s)...)
		v.Scenarios = append(v.Scenarios, sv)
	}
	return v, nil
}

// paragraphs parts a text at its blank lines.
func paragraphs(text string) (all []string) {
	for p := range strings.SplitSeq(text, "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			all = append(all, p)
		}
	}
	return all
}

// grade is how far a factor is from the best, in five steps.
func grade(factor float64) string {
	for i, limit := range []float64{1.05, 1.3, 2, 5} {
		if factor <= limit {
			return fmt.Sprintf("g%d", i)
		}
	}
	return "g4"
}

// choose is the table from which to choose: for each subject how it ranks in each scenario. nil if there is nothing to choose.
func choose(f *result.File) *choiceView {
	type column struct {
		s   *result.Scenario
		all []ranked
	}
	var columns []column
	var subjects []string
	seen := map[string]bool{}
	for i := range f.Scenarios {
		s := &f.Scenarios[i]
		all := rank(f, s)
		if len(all) < 2 {
			continue
		}
		columns = append(columns, column{s, all})
		for _, name := range s.Subjects() {
			if !seen[name] {
				seen[name] = true
				subjects = append(subjects, name)
			}
		}
	}
	if len(columns) < 2 || len(subjects) < 2 {
		return nil
	}
	v := &choiceView{Head: []headView{{Text: ""}}}
	for _, c := range columns {
		fig := mainFigure(f, c.s)
		v.Head = append(v.Head, headView{c.s.Title, fig.Title})
	}
	for _, name := range subjects {
		row := []cellView{{Text: name, Name: true}}
		for _, c := range columns {
			cell := cellView{Text: "-"}
			for _, x := range c.all {
				if x.subject != name {
					continue
				}
				fig := mainFigure(f, c.s)
				cell = cellView{Text: quantity(x.value.Value, fig.Unit), Class: grade(x.factor)}
				switch {
				case failing(f, x.row):
					cell.Class, cell.Small = "g4", quantity(unanswered(f, x.row), "%")+" unanswered"
				case x.factor > 1.05:
					cell.Small = times(x.factor)
				default:
					cell.Small = "best"
				}
			}
			row = append(row, cell)
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

// figureTable has all figures of a scenario.
func figureTable(f *result.File, s *result.Scenario) tableView {
	t := tableView{Caption: "All figures", Head: []headView{{Text: ""}}, Open: s.Axis == ""}
	figures := shown(f, s)
	if s.Axis != "" {
		t.Head = append(t.Head, headView{Text: s.Axis})
	}
	for _, fig := range figures {
		t.Head = append(t.Head, headView{fig.Name, strings.TrimSpace(fig.Title + ". " + fig.About)})
	}
	rows := s.Rows
	if all := rank(f, s); s.Axis == "" && len(all) == len(rows) {
		rows = nil
		for _, x := range all {
			rows = append(rows, *x.row)
		}
	}
	for _, r := range rows {
		row := []cellView{{Text: r.Subject, Name: true}}
		if s.Axis != "" {
			row = append(row, cellView{Text: axisValue(r.X)})
		}
		if r.Error != "" {
			t.Rows = append(t.Rows, append(row, cellView{Text: r.Error}))
			continue
		}
		for _, fig := range figures {
			v := r.Values[fig.Name]
			switch {
			case v.Spread:
				t.Caption = "All figures: medians, and from the lowest to the highest"
			case v.N > 1:
				t.Caption = "All figures, with half the width of their 95 % confidence intervals"
			}
			text, small, _ := strings.Cut(withInterval(fig, v), " ±")
			if small != "" {
				small = "±" + small
			}
			row = append(row, cellView{Text: text, Small: small, Class: against(fig, rows, r, s.Axis != "")})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// against grades a value against the best of its column; with an axis, of its point.
func against(fig result.Figure, rows []result.Row, r result.Row, axis bool) string {
	v, ok := r.Values[fig.Name]
	if !ok || v.N == 0 || fig.Better == result.Neither || len(rows) < 2 {
		return ""
	}
	best, all := math.NaN(), 0
	for _, o := range rows {
		w, ok := o.Values[fig.Name]
		if !ok || w.N == 0 || axis && (o.X == nil || r.X == nil || *o.X != *r.X) {
			continue
		}
		all++
		if math.IsNaN(best) || (fig.Better == result.Less) == (w.Value < best) {
			best = w.Value
		}
	}
	switch {
	case all < 2:
		return ""
	case fig.Better == result.More:
		return grade(best / v.Value)
	case best == 0: // compared with nothing: a percent or a little is much
		return grade(1 + 10*v.Value)
	}
	return grade(v.Value / best)
}

// partTables are the figures of the subjects' parts, such as servers.
func partTables(f *result.File, s *result.Scenario) (all []tableView) {
	if s.Axis != "" {
		return nil
	}
	for _, fig := range f.Figures {
		t := tableView{Caption: capital(fig.Title)}
		for _, r := range s.Rows {
			ps := r.Parts[fig.Name]
			if len(ps) == 0 {
				continue
			}
			if t.Head == nil {
				t.Head = []headView{{Text: ""}}
				for _, p := range ps {
					t.Head = append(t.Head, headView{Text: p.Name})
				}
			}
			row := []cellView{{Text: r.Subject, Name: true}}
			for _, p := range ps {
				row = append(row, cellView{Text: quantity(p.Value.Value, fig.Unit)})
			}
			t.Rows = append(t.Rows, row)
		}
		if len(t.Rows) > 0 && len(t.Head) < 18 {
			all = append(all, t)
		}
	}
	return all
}
