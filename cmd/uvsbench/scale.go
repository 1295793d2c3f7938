package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

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
	for _, word := range words {
		var err error
		switch word {
		case "table":
			err = scale.Table(out, sizes)
		case "services":
			err = scale.Services(out, services)
		case "changes":
			err = scale.Changes(ctx, out, many, 100, *rounds, *length)
		case "listing":
			err = scale.Listing(ctx, out, conns, *length)
		case "workers":
			for _, n := range []int{1, 2, 8} {
				if err = scale.Workers(ctx, out, n, *length); err != nil {
					break
				}
			}
		default:
			err = fmt.Errorf("nothing called %q to measure", word)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
