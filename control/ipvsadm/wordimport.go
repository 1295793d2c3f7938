package ipvsadm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ImportFunc turns a file of another program's into uvs.yaml. It is config/importer's, which reads rules by this package, so
// that this one can't import it. kind is empty to be guessed, configID is keepalived's -i.
type ImportFunc func(path, kind, configID string, stdin io.Reader) (*Imported, error)

// Imported is what was made of a file.
type Imported struct {
	// YAML is uvs.yaml.
	YAML []byte
	// Report says what became of each directive, for people; JSON the same for programs.
	Report, JSON []byte
	// Lost is how many directives were not carried over.
	Lost int
	// Wrong is what uvsd --check says against the result on this machine, such as a certificate that isn't here, or nil.
	Wrong error
}

// exitLost is import's status when something was not carried over, exitNothing when there is no result.
const (
	exitLost    = 1
	exitNothing = 2
)

// importWord is the word import: a file of another program's as uvs.yaml on standard output, what became of it on standard
// error. It asks no uvsd.
func (r *run) importWord(args []string) error {
	var path, output string
	options := map[string]string{}
	asJSON := false
	for len(args) > 0 {
		option, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		switch option {
		case "--json":
			asJSON = true
			continue
		case "--kind", "--config-id", "-o", "--output":
		default:
			if joined {
				option += "=" + value
			}
			if path != "" || strings.HasPrefix(option, "-") && option != "-" {
				return r.complain("import", "unexpected argument %s", option)
			}
			path = option
			continue
		}
		if !joined {
			if len(args) == 0 {
				return r.complain("import", "%s: a value is missing", option)
			}
			value, args = args[0], args[1:]
		}
		if option == "-o" || option == "--output" {
			output = value
		} else {
			options[option] = value
		}
	}
	switch {
	case path == "":
		return r.complain("import", "a file is missing; - is standard input")
	case r.Import == nil:
		return r.complain("import", "not in this program")
	}
	result, err := r.Import(path, options["--kind"], options["--config-id"], r.Stdin)
	if err != nil {
		return &failure{text: fmt.Sprintf("%s import: %v", filepath.Base(r.Name), err), exit: exitNothing}
	}
	if err := r.writeImported(output, result.YAML); err != nil {
		return &failure{text: fmt.Sprintf("%s import: %v", filepath.Base(r.Name), err), exit: exitNothing}
	}
	report := result.Report
	if asJSON {
		report = result.JSON
	}
	if err := r.out.Flush(); err != nil { // the result stands before what is said of it
		return err
	}
	if _, err := r.Stderr.Write(report); err != nil {
		return err
	}
	if result.Wrong != nil {
		return &failure{text: fmt.Sprintf("uvsd --check would say here:\n%v", result.Wrong), exit: exitLost}
	}
	if result.Lost > 0 {
		return &failure{exit: exitLost}
	}
	return nil
}

// writeImported writes the result to standard output, or to a file that isn't there yet: it has passwords, and may not take the
// place of a file that somebody wrote.
func (r *run) writeImported(output string, text []byte) error {
	if output == "" {
		_, err := r.out.Write(text)
		return err
	}
	f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
