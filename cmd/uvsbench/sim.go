package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uvs/bench"
	"uvs/bench/progress"
	"uvs/bench/report"
	"uvs/bench/result"
	"uvs/bench/sim"
	"uvs/bench/studies"
)

const simUsage = `usage: uvsbench sim --study STUDY [options]

Puts schedulers into the same situations in virtual time and says how they fare: response times, imbalance, moved clients, cache
hits, cost. The code that decides is uvsd's own. STUDY is a YAML file, or the name of one that uvsbench brings along:

%s
It ends with tables on standard output and a report in STUDY.html, whose figures are in STUDY.json; uvsbench report takes several
of those. Ctrl-C ends it with what is simulated so far. A seed gives the same figures again, whatever the machine's speed, but for
the cost of a decision, which is measured.

To write a study, begin with one of these (uvsbench sim --print classic) and see docs/comparing-schedulers.md.

options:
`

// simulate is the word sim.
func simulate(ctx context.Context, args []string, out io.Writer) error {
	var opts sim.Options
	fs := flag.NewFlagSet("uvsbench sim", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), simUsage, studyList())
		fs.PrintDefaults()
	}
	study := fs.String("study", "", "the `study`: a YAML file, or a name from the list above")
	fs.Func("schedulers", "compare these `schedulers` instead of the study's: separated by commas, flags after blanks (\"rr,mh mh-fallback\")", names(&opts.Schedulers))
	fs.Func("scenarios", "only these of the study's scenarios, `names` separated by commas", names(&opts.Scenarios))
	fs.IntVar(&opts.Seeds, "seeds", 0, "runs of each scheduler in each scenario (default the study's)")
	fs.Uint64Var(&opts.FirstSeed, "seed", 1, "first of the seeds")
	fs.IntVar(&opts.Connections, "connections", 0, "connections of each run, where the study doesn't give a time (default the study's)")
	fs.IntVar(&opts.Workers, "workers", 0, "runs at once (default as many as processors)")
	dir := fs.String("out", ".", "`directory` of the report and its figures")
	html := fs.String("html", "", "`file` of the report, none for no report (default STUDY.html)")
	file := fs.String("json", "", "`file` of the figures, none for no file (default STUDY.json)")
	plots := fs.String("plots", "", "also write every plot as SVG and PNG into this `directory`")
	list := fs.Bool("list", false, "list the studies that uvsbench brings along")
	print := fs.String("print", "", "print the `study` of that name")
	onLab := fs.Bool("lab", false, "measure it on real servers behind uvsd in a lab, too, and report both (as root; the study's arrivals are closed)")
	live := bench.StudyLab{}
	fs.DurationVar(&live.Time, "lab-time", 20*time.Second, "length of each measurement there")
	rounds := fs.Int("lab-rounds", 1, "rounds of measurements there")
	labSchedulers := []string{"rr"}
	fs.Func("lab-schedulers", "the `schedulers` measured there (default rr)", func(s string) error {
		labSchedulers = nil
		return names(&labSchedulers)(s)
	})
	fs.StringVar(&live.Programs, "programs", "", "`directory` of uvsd and uvsadm, for the lab (default that of uvsbench)")
	quiet := fs.Bool("quiet", false, "no tables and no progress bar")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case *list:
		_, err := io.WriteString(out, studyList())
		return err
	case *print != "":
		text, err := studies.Read(*print)
		if err != nil {
			return noStudy(*print, err)
		}
		_, err = out.Write(text)
		return err
	case *study == "":
		return errors.New("which study? --study FILE or --study NAME; uvsbench sim --list lists those there are")
	}
	if live.Programs == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		live.Programs = filepath.Dir(self)
	}
	s, name, err := readStudy(*study)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil { // not after minutes of measuring
		return err
	}
	if *onLab {
		if err := live.Check(s, opts.Scenarios); err != nil {
			return err
		}
	}
	if !*quiet {
		bar := progress.New(os.Stderr, "simulating "+name)
		defer bar.Done()
		opts.Progress = func(done, of float64) { bar.Set(done, of, fmt.Sprintf("%.3g M connections", done/1e6)) }
	}
	f, err := s.Run(ctx, opts)
	if f == nil {
		return err
	}
	files := []*result.File{f}
	if *onLab && err == nil {
		labOpts := sim.Options{Schedulers: labSchedulers, Scenarios: opts.Scenarios, Seeds: *rounds}
		if !*quiet {
			bar := progress.New(os.Stderr, "measuring "+name)
			defer bar.Done()
			labOpts.Progress = func(done, of float64) { bar.Set(done, of, fmt.Sprintf("%.0f of %.0f measurements", done, of)) }
		}
		var measured *result.File
		if measured, err = live.Run(ctx, s, labOpts); measured != nil {
			for i := range measured.Scenarios { // what the simulator says stands beside it
				beside(&measured.Scenarios[i], f)
			}
			files = append(files, measured)
		}
	}
	for _, f := range files {
		f.Machine, f.Command = bench.Machine(), "uvsbench sim "+strings.Join(args, " ")
	}
	return errors.Join(err, finish(out, files, *quiet, outputs{
		html: place(*html, *dir, name+".html"), json: place(*file, *dir, name+".json"), plots: *plots,
	}))
}

// beside adds the simulation's values to a measured scenario, as curves to compare with.
func beside(s *result.Scenario, simulated *result.File) {
	for i := range simulated.Scenarios {
		o := &simulated.Scenarios[i]
		if o.Name != s.Name {
			continue
		}
		for _, subject := range s.Subjects() {
			c := result.Curve{Subject: subject + ", simulated"}
			for _, r := range o.Rows {
				if r.Subject == subject && r.X != nil {
					c.X, c.Y = append(c.X, *r.X), append(c.Y, r.Values[o.Main].Value)
				}
			}
			if len(c.X) > 0 {
				s.Reference = append(s.Reference, c)
			}
		}
	}
}

// readStudy reads a study by its file or by its name.
func readStudy(name string) (*sim.Study, string, error) {
	if text, err := studies.Read(name); err == nil && !strings.ContainsRune(name, '/') {
		s, err := sim.ParseStudy(text, ".")
		return s, name, err
	}
	s, err := sim.ReadStudy(name)
	if errors.Is(err, fs.ErrNotExist) && filepath.Ext(name) == "" {
		err = noStudy(name, err)
	}
	return s, strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), err
}

func noStudy(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no study %q; there are %s, or give a file", name, strings.Join(studies.Names(), " "))
	}
	return err
}

// studyList has a line for each study that uvsbench brings along.
func studyList() string {
	var b strings.Builder
	for _, name := range studies.Names() {
		text, err := studies.Read(name)
		if err != nil {
			continue
		}
		title := ""
		for line := range strings.Lines(string(text)) {
			if t, ok := strings.CutPrefix(line, "title: "); ok {
				title = strings.TrimSpace(t)
			}
		}
		fmt.Fprintf(&b, "  %-12s %s\n", name, title)
	}
	return b.String()
}

// outputs are the files that a result goes into; empty ones are not written.
type outputs struct{ html, json, plots string }

// place is where a file goes: as asked, nowhere for "none", or by default into the directory.
func place(asked, dir, name string) string {
	switch asked {
	case "none":
		return ""
	case "":
		return filepath.Join(dir, name)
	}
	return asked
}

// finish prints results' tables and writes their files.
func finish(out io.Writer, files []*result.File, quiet bool, to outputs) error {
	var err error
	for _, f := range files {
		if !quiet {
			err = errors.Join(err, report.Text(out, f))
		}
	}
	wrote := func(name string, e error) {
		err = errors.Join(err, e)
		if e == nil && !quiet {
			fmt.Fprintln(out, "wrote", name)
		}
	}
	for i, f := range files {
		if to.json == "" {
			break
		}
		name := to.json
		if i > 0 {
			name = strings.TrimSuffix(name, ".json") + "-" + f.Kind + ".json"
		}
		wrote(name, f.Write(name))
	}
	if to.html != "" {
		wrote(to.html, report.WriteHTML(to.html, files))
	}
	if to.plots != "" {
		wrote("plots in "+to.plots, report.WritePlots(to.plots, files))
	}
	return err
}
