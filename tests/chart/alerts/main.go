// Evaluates alerts over told series with Prometheus' own engine, as a server that evaluates them
// four times a minute would. Reads the alerts and stories as JSON, and writes for each story the
// alerts that fire at its end.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
)

// step is between two samples of a series, and two evaluations.
const step = 15 * time.Second

type alert struct {
	Alert string
	Expr  string
	For   string
}

type story struct {
	Name   string
	Series []string
	Until  string
}

type firing struct {
	Alert  string            `json:"alert"`
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

func main() {
	var asked struct {
		Alerts  []alert
		Stories []story
	}
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fail(err)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute})
	told := map[string][]firing{}
	for _, story := range asked.Stories {
		series, err := parse(story.Series)
		if err != nil {
			fail(fmt.Sprintf("%s: %v", story.Name, err))
		}
		told[story.Name] = []firing{}
		for _, alert := range asked.Alerts {
			fired := fires(engine, series, alert, duration(story.Until))
			told[story.Name] = append(told[story.Name], fired...)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		fail(err)
	}
}

// fires answers for which labels the alert holds at the end, and has held for as long as it must.
func fires(engine *promql.Engine, series told, alert alert, until time.Duration) []firing {
	since := map[string]time.Time{}
	var found []firing
	for at := start; !at.After(start.Add(until)); at = at.Add(step) {
		held := map[string]time.Time{}
		found = nil
		for _, sample := range evaluate(engine, series, alert, at) {
			name := sample.Metric.String()
			held[name] = at
			if before, ok := since[name]; ok {
				held[name] = before
			}
			if at.Sub(held[name]) >= duration(alert.For) {
				found = append(found, firing{alert.Alert, sample.Metric.Map(), sample.F})
			}
		}
		since = held
	}
	return found
}

func evaluate(engine *promql.Engine, series told, alert alert, at time.Time) promql.Vector {
	query, err := engine.NewInstantQuery(context.Background(), series, nil, alert.Expr, at)
	if err != nil {
		fail(fmt.Sprintf("%s: %v", alert.Alert, err))
	}
	defer query.Close()
	vector, err := query.Exec(context.Background()).Vector()
	if err != nil {
		fail(fmt.Sprintf("%s: %v", alert.Alert, err))
	}
	return append(promql.Vector{}, vector...)
}

func duration(text string) time.Duration {
	if text == "" {
		return 0
	}
	parsed, err := model.ParseDuration(text)
	if err != nil {
		fail(err)
	}
	return time.Duration(parsed)
}

func fail(what any) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(1)
}
