package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"uvs/bench/progress"
	"uvs/bench/scale"
)

// scaled is the word scale.
func scaled(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("uvsbench scale", flag.ContinueOnError)
	what := fs.String("what", "table,services,changes,listing,workers", "what to measure")
	small := fs.Bool("small", false, "only what is done in seconds: nothing of ten million connections or 100,000 services")
	rounds := fs.Int("rounds", 5, "rounds of changes")
	length := fs.Duration("time", time.Second, "length of a round")
	if err := fs.Parse(args); err != nil {
		return err
	}
	sizes, services, many, conns := []int{1 << 10, 1 << 16, 1 << 20, 10_000_000}, []int{10, 100_000}, 10_000, 1_000_000
	if *small {
		sizes, services, many, conns = sizes[:2], []int{10, 1000}, 1000, 10_000
	}
	var words []string
	if err := names(&words)(*what); err != nil {
		return err
	}
	measure := map[string]func() error{
		"table":    func() error { return scale.Table(ctx, out, sizes) },
		"services": func() error { return scale.Services(ctx, out, services) },
		"changes":  func() error { return scale.Changes(ctx, out, many, 100, *rounds, *length) },
		"listing":  func() error { return scale.Listing(ctx, out, conns, *length) },
		"workers": func() error {
			for _, n := range []int{1, 2, 8} {
				if err := scale.Workers(ctx, out, n, *length); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for _, word := range words {
		if measure[word] == nil {
			return fmt.Errorf("nothing called %q to measure", word)
		}
	}
	bar := progress.New(os.Stderr, "measuring")
	out = bar.Over(out)
	for i, word := range words {
		if err := bar.While(float64(i), float64(len(words)), word, measure[word]); err != nil {
			return err
		}
	}
	return nil
}
