{{/* What the schema cannot say, in one sentence each. Included once, by configmap.yaml. */}}

{{- define "fanfare.checks" -}}
{{- include "fanfare.checks.grace" . -}}
{{- include "fanfare.checks.scale" . -}}
{{- include "fanfare.checks.store" . -}}
{{- include "fanfare.checks.secrets" . -}}
{{- end }}

{{- define "fanfare.checks.grace" -}}
{{- $least := add .Values.drainDeadlineSeconds .Values.preStopSeconds 5 -}}
{{- if lt (int64 .Values.terminationGracePeriodSeconds) (int64 $least) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but a drain may take drainDeadlineSeconds (%d) after preStopSeconds (%d): set it to at least %d, or a rollout cuts deliveries off and repeats them" (int64 .Values.terminationGracePeriodSeconds) (int64 .Values.drainDeadlineSeconds) (int64 .Values.preStopSeconds) $least) -}}
{{- end -}}
{{- end }}

{{/* Partitions of the delivery topic: more workers than that have nothing to do. */}}
{{- define "fanfare.delivery.partitions" -}}
{{- dig "kafka" "delivery_partitions" 16 .Values.settings | int64 -}}
{{- end }}

{{- define "fanfare.checks.scale" -}}
{{- if eq .Values.mode "distributed" -}}
{{- $partitions := include "fanfare.delivery.partitions" . | int64 -}}
{{- $kind := .Values.autoscaling.kind -}}
{{- range $name, $part := dict "router" .Values.autoscaling.router "worker" .Values.autoscaling.worker -}}
{{- if and (ne $kind "none") (gt (int64 $part.minReplicas) (int64 $part.maxReplicas)) -}}
{{- fail (printf "autoscaling.%s.minReplicas is %d, more than its maxReplicas, %d: raise the latter" $name (int64 $part.minReplicas) (int64 $part.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $from := eq $kind "none" | ternary "worker.replicas" "autoscaling.worker.maxReplicas" -}}
{{- $most := eq $kind "none" | ternary .Values.worker.replicas .Values.autoscaling.worker.maxReplicas | int64 -}}
{{- if gt $most $partitions -}}
{{- fail (printf "%s is %d, but deliveries have %d partitions (settings.kafka.delivery_partitions) and further workers would have nothing to do: set it to at most %d" $from $most $partitions $partitions) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "fanfare.checks.store" -}}
{{- if and .Values.cql.passwordSecret.name (not .Values.cql.user) -}}
{{- fail "cql.passwordSecret is given and cql.user is not: name the user whose password it is" -}}
{{- end -}}
{{- if and .Values.kafka.sasl.passwordSecret.name (not .Values.kafka.sasl.mechanism) -}}
{{- fail "kafka.sasl.passwordSecret is given and kafka.sasl.mechanism is not: say how to log in, plain, scram-sha256 or scram-sha512" -}}
{{- end -}}
{{- if and (or .Values.kafka.tls.caSecret.name .Values.kafka.tls.clientSecret.name) (not .Values.kafka.tls.enabled) -}}
{{- fail "kafka.tls has certificates and kafka.tls.enabled is false: turn it on, or the brokers are talked to in the clear" -}}
{{- end -}}
{{- end }}

{{/* Only where a cluster answers: it knows the namespace, and not the Secret or its key. */}}
{{- define "fanfare.checks.secrets" -}}
{{- if .Values.secrets.lookup -}}
{{- range include "fanfare.secrets" . | fromJsonArray -}}
{{- if lookup "v1" "Namespace" "" $.Release.Namespace -}}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace .name -}}
{{- if not $secret -}}
{{- fail (printf "there is no Secret %s in namespace %s: make it, or refer to another (secrets.lookup=false leaves this unchecked)" .name $.Release.Namespace) -}}
{{- end -}}
{{- if not (hasKey (default dict $secret.data) .key) -}}
{{- fail (printf "the Secret %s in namespace %s has no key %s: add it, or name the key that it has" .name $.Release.Namespace .key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
