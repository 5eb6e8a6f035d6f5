package main

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// start is late enough that no range reaches before the beginning of time.
var start = time.Unix(1_000_000, 0)

// told is a database of the series that a story tells.
type told []storage.Series

// parse reads series in Prometheus' notation for tests.
func parse(lines []string) (told, error) {
	var all told
	for _, line := range lines {
		name, values, err := parser.ParseSeriesDesc(line)
		if err != nil {
			return nil, err
		}
		var samples []chunks.Sample
		for n, value := range values {
			if !value.Omitted {
				at := start.Add(time.Duration(n) * step).UnixMilli()
				samples = append(samples, sample{at, value.Value})
			}
		}
		all = append(all, storage.NewListSeries(name, samples))
	}
	return all, nil
}

func (all told) Querier(_, _ int64) (storage.Querier, error) { return querier{all: all}, nil }

// querier answers selections; the engine asks for nothing else.
type querier struct {
	storage.LabelQuerier
	all told
}

func (q querier) Close() error { return nil }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, wanted ...*labels.Matcher) storage.SeriesSet {
	var found told
	for _, series := range q.all {
		if matches(series.Labels(), wanted) {
			found = append(found, series)
		}
	}
	return &set{found: found}
}

func matches(name labels.Labels, wanted []*labels.Matcher) bool {
	for _, matcher := range wanted {
		if !matcher.Matches(name.Get(matcher.Name)) {
			return false
		}
	}
	return true
}

// set is what was selected.
type set struct {
	found told
	next  int
}

func (s *set) Next() bool                        { s.next++; return s.next <= len(s.found) }
func (s *set) At() storage.Series                { return s.found[s.next-1] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

// sample is a number at a time.
type sample struct {
	t int64
	f float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
