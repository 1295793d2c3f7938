package importer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os/user"
	"reflect"
	"strings"

	"uvs/health"
	"uvs/sched"
)

// Options of kinds of checks that several importers set.
const (
	smtpHelo    = "hello"
	dnsName     = "query"
	dnsType     = "type"
	dnsAnswer   = "answer"
	execCommand = "command"
	execMatch   = "match"
	talkKind    = "expect"
	talkSend    = "send"
	talkExpect  = "expect"
	talkMatch   = "match"
)

// fits says whether a kind of check takes the options. absent says that it names a file or a user that isn't here.
func fits(c check) (absent bool, err error) {
	all := map[string]any{"kind": c.Kind}
	for k, v := range c.options {
		all[k] = v
	}
	text, err := json.Marshal(all)
	if err != nil {
		return false, err
	}
	_, err = health.Decode(text)
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, new(user.UnknownUserError)) {
		return true, nil
	}
	return false, err
}

// prober makes the options of a kind of check, as they are written: what isn't given stays absent.
func prober(kind string, options map[string]any) (health.Prober, error) {
	p := health.New(kind)
	if p == nil {
		return nil, errors.New("there is no such kind of check")
	}
	text, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	return p, json.Unmarshal(text, p)
}

func sameCheck(a, b check) bool { return reflect.DeepEqual(a, b) }

// quoteAll puts quotes around words that have blanks, as a command line of a check wants them.
func quoteAll(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if w == "" || strings.ContainsAny(w, " \t\"'\\") {
			out[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
	}
	return out
}

// knownScheduler reports whether uvs has a scheduler.
func knownScheduler(name string) bool {
	return name != sched.None && sched.Known(name)
}

// literal is text as an argument of a check's program, in which a percent sign stands before h and p alone.
func literal(words ...string) []string {
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "%", "%%")
	}
	return words
}
