package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"uvs/bench/report"
	"uvs/bench/result"
)

const reportUsage = `usage: uvsbench report [options] FILE.json ...

Makes one self-contained HTML file, with tables, plots and what to conclude, of the figures that uvsbench sim, wire, load and replay
write with --json. Several files stand below one another.

options:
`

// reported is the word report.
func reported(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("uvsbench report", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), reportUsage)
		fs.PrintDefaults()
	}
	html := fs.String("html", "report.html", "`file` of the report, none for no report")
	plots := fs.String("plots", "", "also write every plot as SVG and PNG into this `directory`")
	text := fs.Bool("text", false, "also print the tables")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errors.New("a report of what? Name the files that sim, wire, load and replay wrote")
	}
	var files []*result.File
	for _, name := range fs.Args() {
		f, err := result.Read(name)
		if err != nil {
			return err
		}
		files = append(files, f)
		if *text {
			if err := report.Text(out, f); err != nil {
				return err
			}
		}
	}
	if *html != "none" && *html != "" {
		if err := report.WriteHTML(*html, files); err != nil {
			return err
		}
		fmt.Fprintln(out, "wrote", *html)
	}
	if *plots != "" {
		if err := report.WritePlots(*plots, files); err != nil {
			return err
		}
		fmt.Fprintln(out, "wrote plots in", *plots)
	}
	return nil
}
