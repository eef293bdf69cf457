{{- define "regen.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels of an object: (dict "root" $ "part" "api") */}}
{{- define "regen.labels" -}}
{{ include "regen.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "regen.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* (dict "root" $ "image" "api") */}}
{{- define "regen.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag }}{{ end }}
{{- end }}

{{- define "regen.serviceAccount" -}}
{{ default (include "regen.name" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "regen.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "regen.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Environment of API, workers and jobs. Passwords are files: REGEN_SECRETS_DIR is /run/secrets unless set. */}}
{{- define "regen.environment" -}}
{{- $name := include "regen.name" . -}}
{{- $fixed := dict
  "REGEN_DATABASE_URL" (ternary (printf "postgresql://regen@%s-postgres:5432/regen" $name) .Values.database.url .Values.database.bundled)
  "REGEN_BROKER_URL" (ternary (printf "redis://%s-redis:6379/0" $name) .Values.broker.url .Values.broker.bundled)
  "REGEN_STORAGE" "s3"
  "REGEN_S3_BUCKET" .Values.s3.bucket
  "REGEN_S3_REGION" .Values.s3.region
  "REGEN_PUBLIC_URL" .Values.publicUrl
  "REGEN_DATA_DIR" "/data"
  "REGEN_LOG_FORMAT" "json" -}}
{{- $endpoint := ternary (printf "http://%s-s3:8333" $name) .Values.s3.endpointUrl .Values.s3.bundled -}}
{{- if $endpoint }}{{ $_ := set $fixed "REGEN_S3_ENDPOINT_URL" $endpoint }}{{ end -}}
{{- if .Values.s3.publicEndpointUrl }}{{ $_ := set $fixed "REGEN_S3_PUBLIC_ENDPOINT_URL" .Values.s3.publicEndpointUrl }}{{ end -}}
{{- if .Values.s3.prefix }}{{ $_ := set $fixed "REGEN_S3_PREFIX" .Values.s3.prefix }}{{ end -}}
{{- range $key, $value := merge (dict) (.extra | default dict) .Values.settings $fixed }}
- {name: {{ $key }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* Mount and volume of the secret files that a part reads: (dict "root" $ "files" (list "regen_secret_key")) */}}
{{- define "regen.secretVolume" -}}
- name: secrets
  secret:
    secretName: {{ .root.Values.existingSecret }}
    defaultMode: 0440
    items:
    {{- range .files }}
      - {key: {{ . }}, path: {{ . }}}
    {{- end }}
{{- end }}

{{- define "regen.storageSecrets" -}}
{{- if .Values.s3.keysFromSecret }}regen_s3_access_key regen_s3_secret_key{{ end -}}
{{- end }}

{{/* What KEDA divides by its threshold: of a pool that upscales the seconds that one of its workers would take, of
     another one the units that wait. Every pod of the API exports the same figures: (dict "queues" "gpu" "scaling" ...) */}}
{{- define "regen.scalingQuery" -}}
{{- if contains "gpu" .queues -}}
sum(max by (engine, device) (regen_work_remaining_seconds{device=~{{ printf "%s|unmeasured" .scaling.devices | quote }}{{ with .scaling.engines }}, engine=~{{ . | quote }}{{ end }}}))
{{- else -}}
max(regen_work_waiting{queue="cpu"})
{{- end -}}
{{- end }}
